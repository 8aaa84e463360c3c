"""What is added to projections that were trained before."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Adapter(Part):
  """Nothing is added."""

  def wraps(self, role: str) -> bool:
    """Whether the projections of this name ('q', 'up', ...) are added to."""
    return False

  def make(self, letters: str, shape: tuple[int, ...], n_in: int, dims: 'Dims') -> Any:
    """A module `x -> what is added to x W`, for a weight of these axes, the first `n_in` of them
    inputs.
    """
    raise AssertionError(f'{type(self).__name__} must be made')

  def merge(self, kernel: jax.Array, own: dict[str, jax.Array], n_in: int) -> jax.Array:
    """The weight that does what `kernel` and the adapter's `own` parameters do together."""
    raise AssertionError(f'{type(self).__name__} must merge')
