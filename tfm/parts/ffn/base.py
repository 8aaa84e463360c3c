"""Feed-forwards: what happens to each token alone."""

import dataclasses
from typing import Any

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class FFN(Part):
  """`make(dims)` returns a fresh module `(x_BTD, ctx) -> (y_BTD, aux)`, `aux` a scalar to add to the loss."""

  def make(self, dims: Any) -> Any:
    """The module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def flops(self, d_model: int) -> int:
    """Multiplications and additions a token takes."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')
