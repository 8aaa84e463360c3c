"""Attention within blocks and to global tokens (PEGASUS-X)."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.context import Ctx
from tfm.parts.encoder_only import check_uncached
from tfm.parts.mask.base import Mask
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.mixer.masked import BeyondTheMask
from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm


@dataclasses.dataclass(frozen=True)
class GlobalLocal(BeyondTheMask, Attention):
  """Attention to the tokens of the same block and to global tokens (arXiv:2208.04347).

  Global tokens attend to all tokens. `embed=globals` or the input `global_attention_mask` defines
  them. The mixer normalises its input, with separate norms for global tokens and the others.
  Combine it with `residual_layout=pre` and `unnormalised=('mixer',)`.

  Attributes:
    mask: an additional attention mask of tokens that are not global.
    block: number of tokens of a block.
    shift: number of tokens by which the first block of a document is shorter. With a shift of half
      a block in every other layer, information passes between blocks.
    input_norm: norm of the input.
  """

  mask: Mask = Mask()
  block: int = dataclasses.field(default=512, kw_only=True)
  shift: int = dataclasses.field(default=0, kw_only=True)
  input_norm: Norm = dataclasses.field(default=LayerNorm(), kw_only=True)

  def make(self, dims):
    return _GlobalLocal(self, dims)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.block < 1 or not 0 <= self.shift < self.block:
      yield (
        f'block={self.block}, shift={self.shift} are not sizes. '
        'Expected a block of at least 1, and a shift of at least 0 and less than block.'
      )
    if self.input_norm.conditioned:
      yield (
        'input_norm: needs a condition, which this mixer lacks. '
        'Expected a norm without one, such as layer.'
      )

  def pairs(self, length):
    return min(super().pairs(length), self.block)

  @property
  def effective_mask(self):
    return _BlockAndGlobal(self.mask, self.block, self.shift)

  @property
  def reads(self):
    return super().reads | {'global'}


@dataclasses.dataclass(frozen=True)
class _BlockAndGlobal(Mask):
  """Mask of the tokens of the same block, combined with `mask`, and of global tokens."""

  mask: Mask
  block: int
  shift: int

  def __call__(self, q, k):
    row, column = ((info.positions + self.shift) // self.block for info in (q, k))
    allowed, q_global = (row == column) & self.mask(q, k), q.get('global')
    if q_global is not None:
      allowed = allowed | q_global | k.get('global')
    return Segments()(q, k) & allowed


class _GlobalLocal(_Attention):
  spec: GlobalLocal

  def entering(self, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    check_uncached(ctx.slot is not None, 'global_local', 'tokens attend to later ones')
    marked_BT = ctx.info.get('global')
    norm: Any = self.spec.input_norm.make(self.dims)
    plain_BTD, global_BTD = (
      norm.copy(name='input_norm')(x_BTD),
      norm.copy(name='global_norm')(x_BTD),
    )
    return (
      plain_BTD if marked_BT is None else jnp.where(marked_BT[..., None], global_BTD, plain_BTD)
    )
