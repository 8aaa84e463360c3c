"""Normalisation over the last axis; statistics in the run's reduce dtype."""

import dataclasses
from typing import Any

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Norm(Part):
  """`make(dims)` returns a fresh module `x_BTD -> x_BTD`."""

  def make(self, dims: Any, letters: str = 'D') -> Any:
    """A module that normalises the last axis, whose parameters lie along `letters` ('H' inside a head)."""
    raise AssertionError(f'{type(self).__name__} must make a module')
