"""Base class of absolute position encodings, which are added to the embeddings."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Absolute(Part):
  """No absolute position encoding."""

  def make(self, dims: 'Dims') -> Any:
    """Return a callable `(x_BTD, pos_BT) -> x_BTD`: a module, or this part without parameters."""
    return self

  @property
  def max_positions(self) -> int | None:
    """Largest number of positions, or None if there is no limit."""
    return None

  def __call__(self, x_BTD: jax.Array, pos_BT: jax.Array) -> jax.Array:
    return x_BTD
