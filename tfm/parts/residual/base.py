"""Base class of residual connections: the residual stream and a carry between blocks."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from tfm.core.registry import Part
from tfm.parts.residual_layout.base import Branches, ResidualLayout

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Residual(Part):
  """Plain residual stream: each block uses the output of the previous one.

  `make(dims)` returns a module if the part has parameters, else the part itself. Called without
  arguments, either returns an object with the methods `start`, `join`, `after` and `end`. The carry
  is a tree of arrays with constant shapes, so that segments can be scanned. It holds values of
  single tokens only, so decoding needs no cache for it.
  """

  def make(self, dims: 'Dims') -> Any:
    return self

  def __call__(self) -> Any:
    return self

  def start(self, x_BTD: jax.Array) -> tuple[jax.Array, Any]:
    """Return the input of the first block and the initial carry, given the embeddings."""
    return x_BTD, ()

  def join(
    self,
    residual_layout: ResidualLayout,
    x_BTD: jax.Array,
    carry: Any,
    branches: Branches,
    norm: Callable[[str], Any],
    ctx: Any,
  ) -> tuple[jax.Array, Any]:
    """Add the branches of a block to the stream.

    Args:
      residual_layout: order of norms, branches and sums.
      x_BTD: input of the block.
      carry: the carry.
      branches: branches of the block, by name.
      norm: returns a norm for a name.

    Returns:
      The output of the block and the new carry.
    """
    return residual_layout(x_BTD, branches, norm), carry

  def after(self, x_BTD: jax.Array, carry: Any, layer: Any) -> tuple[jax.Array, Any]:
    """Return the input of the next block and the new carry.

    Args:
      x_BTD: output of the block.
      carry: the carry.
      layer: index of the block, int32 from 0.

    Returns:
      The input of the next block and the new carry.
    """
    return x_BTD, carry

  def end(self, x_BTD: jax.Array, carry: Any) -> jax.Array:
    """Return the input of the final norm."""
    return x_BTD

  @property
  def in_blocks(self) -> bool:
    """Whether every block has parameters of the residual."""
    return False

  @property
  def layered(self) -> int:
    """The width of the per-layer embeddings that blocks use (`Ctx.layered_BTLR`); 0: none."""
    return 0

  @property
  def reversible(self) -> bool:
    """Whether the input of a block can be computed from its output.

    Training then saves neither of them.
    """
    return False

  def fits(self, residual_layout: ResidualLayout) -> Iterator[str]:
    """Yield a message if blocks of this residual layout are not supported."""
    yield from ()

  def flops(self, d_model: int, depth: int) -> float:
    """Return the forward FLOPs per token of a stack of `depth` blocks."""
    return 0
