"""How loud a branch is."""

import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Gain(Part):
  """f(x): the branch as it is. `make(dims)` returns a fresh module `y_BTD -> y_BTD`, or the piece itself."""

  def make(self, dims: Any) -> Any:
    return self

  def __call__(self, y_BTD: jax.Array) -> jax.Array:
    return y_BTD
