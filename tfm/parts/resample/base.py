"""How a segment changes the length and width of the sequence that it reads."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Resample(Part):
  """`make(dims, width)` returns a module `(x_BTD, info, grid) -> (x_BSE, info, grid)`.

  `dims.d_model` is the width E of the result, `width` that of the input. `grid` is the number of
  rows and columns of image patches, None for other sequences."""

  def make(self, dims: Any, width: int) -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  @property
  def grid(self) -> bool:
    """Whether it needs a grid of image patches without class or register tokens."""
    return False

  def length(self, length: float) -> float:
    """Return the length of the sequence afterwards."""
    raise AssertionError(f'{type(self).__name__} must tell lengths')

  def flops(self, width: int, d_model: int) -> float:
    """Return the forward FLOPs per token of the input."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def fits(self, width: int) -> Iterator[str]:
    """Yield a sentence for each reason why it cannot read vectors of this width."""
    yield from ()
