"""What travels from block to block of a stack: the stream, and what is carried beside it."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part
from tfm.parts.residual_layout.base import Branches, ResidualLayout


@dataclasses.dataclass(frozen=True)
class Residual(Part):
  """x: a block reads what the one before it wrote, and nothing else travels.

  `make(dims)` returns a module if the piece owns parameters, else itself; either, when called,
  gives the four methods with the parameters in them. The carry is a tree of arrays of one shape
  throughout the stack, so that it goes through the scan over a segment's repeats. All of it belongs
  to single tokens: nothing is cached for decoding."""

  def make(self, dims: Any) -> Any:
    return self

  def __call__(self) -> Any:
    return self

  def start(self, x_BTD: jax.Array) -> tuple[jax.Array, Any]:
    """(what the first block reads, the carry) of the embeddings."""
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
    """(x_BTD, carry) once a block's branches have been added. Modules made here belong to the
    block.
    """
    return residual_layout(x_BTD, branches, norm), carry

  def after(self, x_BTD: jax.Array, carry: Any, layer: Any) -> tuple[jax.Array, Any]:
    """(what the next block reads, carry), when block `layer` (an int32, from 0) has written x_BTD."""
    return x_BTD, carry

  def end(self, x_BTD: jax.Array, carry: Any) -> jax.Array:
    """What the final norm reads."""
    return x_BTD

  @property
  def in_blocks(self) -> bool:
    """Whether every block has parameters of the residual."""
    return False

  @property
  def layered(self) -> int:
    """The width of the vectors for each layer that it needs (`Ctx.layered_BTLR`), 0 for none."""
    return 0

  @property
  def reversible(self) -> bool:
    """Whether a block's input follows from its output, so that training need keep neither."""
    return False

  def fits(self, residual_layout: ResidualLayout) -> Iterator[str]:
    """A sentence if blocks of this residual_layout cannot be joined so."""
    yield from ()

  def flops(self, d_model: int, depth: int) -> float:
    """Forward FLOPs a token of a stack of so many blocks."""
    return 0
