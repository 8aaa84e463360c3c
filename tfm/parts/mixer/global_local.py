"""Attention within blocks and to global tokens, with a norm of their own for the latter
(PEGASUS-X).
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.context import Ctx
from tfm.parts.mask.base import Mask
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm


@dataclasses.dataclass(frozen=True)
class GlobalLocal(Attention):
  """Attention of a token to those of its block and to global tokens, which attend to all
  (arXiv:2208.04347).

  The input is normalised here, global tokens by a norm of their own, so that the residual_layout is
  to leave it unnormalised: `residual_layout=pre` with `bare=('mixer',)`. `embed=globals` gives
  global tokens, or the input `global_attention_mask`.

  Attributes: mask: a further attention mask of tokens that are not global. block: how many tokens a
    block has. shift: how many tokens the first block of a document lacks. Layers with and without a
    shift of half a block, in
      turns, pass on what is in other blocks.
    input_norm: the norm of the input.
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
      yield f'block={self.block}, shift={self.shift}. Expected at least 1, and a shift of at least 0 below it.'
    if self.input_norm.conditioned:
      yield 'input_norm: needs a condition, and here it is given none. Expected one without, such as layer.'

  def pairs(self, length):
    return min(super().pairs(length), self.block)

  @property
  def effective_mask(self):
    return _Blocks(self.mask, self.block, self.shift)

  @property
  def causal(self):
    return False

  @property
  def lookback(self):
    return None

  @property
  def reads(self):
    return super().reads | {'global'}

  @property
  def masked(self):
    return False


@dataclasses.dataclass(frozen=True)
class _Blocks(Mask):
  """The tokens of a block that `mask` allows; all tokens for global ones, and global ones for all."""

  mask: Mask
  block: int
  shift: int

  def __call__(self, q, k):
    row, column = ((info.positions + self.shift) // self.block for info in (q, k))
    near, asking, asked = (row == column) & self.mask(q, k), q.get('global'), k.get('global')
    return Segments()(q, k) & (near if asking is None else near | asking | asked)


class _GlobalLocal(_Attention):
  spec: GlobalLocal

  def entering(self, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    if ctx.slot is not None:
      raise errors.UserError(
        'global_local: blocks show later tokens. Expected an encoder, without a cache.'
      )
    marked_BT = ctx.info.get('global')
    norm: Any = self.spec.input_norm.make(self.dims)
    plain_BTD, global_BTD = (
      norm.copy(name='input_norm')(x_BTD),
      norm.copy(name='global_norm')(x_BTD),
    )
    return (
      plain_BTD if marked_BT is None else jnp.where(marked_BT[..., None], global_BTD, plain_BTD)
    )
