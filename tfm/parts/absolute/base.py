"""Absolute position: added to the embeddings at the foot of a stack."""

import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Absolute(Part):
  """Nothing is added."""

  def make(self, dims: Any) -> Any:
    """A fresh `(x_BTD, pos_BT) -> x_BTD`: a module if it owns parameters, else the piece itself."""
    return self

  @property
  def max_positions(self) -> int | None:
    """How many positions it can tell, or None for any number."""
    return None

  def __call__(self, x_BTD: jax.Array, pos_BT: jax.Array) -> jax.Array:
    return x_BTD
