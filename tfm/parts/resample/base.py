"""Base class of layers that change the length of a sequence between segments."""

from collections.abc import Iterator
import dataclasses
from typing import TYPE_CHECKING, Any

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Resample(Part):
  """Base class: a change of length and width before a segment.

  `make(dims, width)` returns a module `(x_BTD, info, grid) -> (x_BSE, info, grid)`. `dims.d_model`
  is the width E of the result, `width` that of the input. `grid` is the number of rows and columns
  of image patches, or None.
  """

  def make(self, dims: 'Dims', width: int) -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  @property
  def grid(self) -> bool:
    """Whether a grid of image patches is required, without class and register tokens."""
    return False

  def length(self, length: float) -> float:
    """Return the length of the result."""
    raise AssertionError(f'{type(self).__name__} must return a length')

  def flops(self, width: int, d_model: int) -> float:
    """Return the forward FLOPs per token of the input."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def fits(self, width: int) -> Iterator[str]:
    """Yield a message for each reason why vectors of this width cannot be resampled."""
    yield from ()
