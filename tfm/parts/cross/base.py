"""Base class of layers that let a decoder use the encoder output."""

from collections.abc import Iterator
import dataclasses
from typing import TYPE_CHECKING, Any

from jax.typing import DTypeLike

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Cross(Part):
  """Base class: attention to the outputs of another tower.

  `make(dims)` returns a module `(x_BTD, ctx, cache) -> (y_BTD, cache)` that uses
  `ctx.towers[tower]`. There are no masks and no relative positions, as the two sequences share no
  order. Padding of the other tower is always masked out.
  """

  #: Name of the tower that provides keys and values.
  tower: str = dataclasses.field(default='encoder', kw_only=True)

  def make(self, dims: 'Dims') -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def fits(self, d_model: int) -> Iterator[str]:
    """Yield a message for each reason why the layer cannot be used at this width."""
    yield from ()

  def flops(self, d_model: int, pairs: float) -> float:
    """Return the forward FLOPs per decoder token that attends to `pairs` encoder tokens."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def memory_flops(self, d_model: int, d_memory: int) -> float:
    """Return the forward FLOPs to compute keys and values of an encoder token."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def init_cache(self, d_model: int, B: int, S: int, dtype: DTypeLike) -> Any:
    """Return an empty cache of keys and values.

    Args:
      d_model: width of the decoder.
      B: batch size.
      S: length of the encoder output.
      dtype: dtype of keys and values.

    Returns:
      A tree of arrays.
    """
    raise AssertionError(f'{type(self).__name__} must make a cache')
