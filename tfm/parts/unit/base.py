"""Base class of the repeated unit of a segment."""

import dataclasses
from typing import TYPE_CHECKING, Any

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Unit(Part):
  """Base class: the computation of one repeat of a segment.

  `make(pattern, dims)` returns a module `(x_BTD, carry, ctx, caches) -> (x_BTD, carry, caches,
  aux)`. `pattern` is the tuple of blocks of the segment. `carry` is defined by the residual kind of
  the tower. `ctx.layer` is the index of the first block. `caches` has one entry per block, or is
  None.
  """

  def make(self, pattern: Any, dims: 'Dims') -> Any:
    """Return the module."""
    raise AssertionError(f'{type(self).__name__} must make a module')
