"""Base class of adapters, which add trainable terms to pretrained projections."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Adapter(Part):
  """No adapter."""

  def wraps(self, role: str) -> bool:
    """Return whether projections with this role ('q', 'up', ...) are adapted."""
    return False

  def make(self, letters: str, shape: tuple[int, ...], n_in: int, dims: 'Dims') -> Any:
    """Return a module that maps x to the term added to x W.

    Args:
      letters: axes of the weight W.
      shape: sizes of these axes.
      n_in: number of axes that are inputs; they come first.
      dims: sizes and settings of the model.

    Returns:
      A fresh module.
    """
    raise AssertionError(f'{type(self).__name__} must be made')

  def merge(self, kernel: jax.Array, params: dict[str, jax.Array], n_in: int) -> jax.Array:
    """Return the weight with the adapter merged into it.

    Args:
      kernel: the pretrained weight.
      params: parameters of the adapter, by name.
      n_in: number of input axes of the weight.

    Returns:
      An array with the shape and dtype of `kernel`.
    """
    raise AssertionError(f'{type(self).__name__} must merge')
