"""Attention by blocks: the first and the last block, and a block's neighbours (BigBird as
transformers runs it).
"""

from collections.abc import Iterator
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.context import Ctx
from tfm.parts.mask.base import Mask
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class BigBirdAttention(Attention):
  """Attention within a token's block, the blocks beside it, and the first and the last of the
  document.

  The first and the last block attend to all. A document of at most (5 + 2 `random`) `block` tokens
  has full attention.

  *Differs*: in the paper (arXiv:2007.14062) a block attends to `random` others, drawn anew for each
  layer. Outside training, transformers draws the first block each time, so its keys count 1 +
  `random` times for blocks that are neither first nor last; so do they here. `mask=bigbird` draws
  blocks. Of padded rows, transformers takes the last block of the row; here it is that of the
  document.

  *Cost*: a kernel that skips tiles takes O(T) of them.

  Attributes:
    mask: a further attention mask.
    block: how many tokens a block has.
    random: how many times the keys of the first block are counted once more.
  """

  mask: Mask = Mask()
  block: int = dataclasses.field(default=64, kw_only=True)
  random: int = dataclasses.field(default=3, kw_only=True)

  def make(self, dims):
    return _BigBird(self, dims)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.block < 1 or self.random < 0:
      yield f'block={self.block}, random={self.random} are not sizes. Expected at least 1 and at least 0.'

  def pairs(self, length):
    n = -(-length // self.block)
    if length <= self.full:
      return super().pairs(length)
    return min(super().pairs(length), (2 * n + 2 * 4 + (n - 4) * 5) * self.block / n)

  @property
  def full(self) -> int:
    """The number of tokens of the longest document with full attention."""
    return (5 + 2 * self.random) * self.block

  @property
  def effective_mask(self):
    return _Near(self.mask, self.block, self.full)

  @property
  def causal(self):
    return False

  @property
  def lookback(self):
    return None

  @property
  def provides(self):
    return frozenset({'length'})

  @property
  def masked(self):
    return False


@dataclasses.dataclass(frozen=True)
class _Near(Mask):
  """The tokens that `mask` allows, and of a document longer than `full` those of some blocks."""

  mask: Mask
  block: int
  full: int

  def __call__(self, q, k):
    row, column, last = (
      q.positions // self.block,
      k.positions // self.block,
      (q.get('length') - 1) // self.block,
    )
    ends = (row == 0) | (row == last) | (column == 0) | (column == last)
    near = ends | (jnp.abs(row - column) <= 1) | (q.get('length') <= self.full)
    return Segments()(q, k) & near & self.mask(q, k)


class _BigBird(_Attention):
  spec: BigBirdAttention

  def sources(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, TokenInfo, TokenInfo]:
    if ctx.slot is not None:
      raise errors.UserError(
        'bigbird: the last block is that of later tokens. Expected an encoder, without a cache.'
      )
    info = ctx.info.with_extras(length=_lengths(ctx.info))
    return x_BTD, info, info

  def biases(self, relative, n_heads: int) -> tuple:
    return (*super().biases(relative, n_heads), functools.partial(self._repeated, n_heads))

  def _repeated(self, n_heads: int, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """Return log(1 + random) for keys of the first block where they count 1 + random times, `[B, N,
    T, S]`.
    """
    q, k, s = q.rows(), k.columns(), self.spec
    row, last = q.positions // s.block, (q.extras['length'] - 1) // s.block
    often = (q.extras['length'] > s.full) & (row > 0) & (row < last) & (k.positions // s.block == 0)
    bias_BTS = jnp.where(often, math.log(1 + s.random), 0.0)
    return jnp.broadcast_to(bias_BTS[:, None], (len(bias_BTS), n_heads, *bias_BTS.shape[1:]))


def _lengths(info: TokenInfo) -> jax.Array:
  """Return the length of each token's document, int32 `[B, T]`: one more than the position of its
  last token.
  """
  T = info.positions.shape[1]
  segment_BT = info.segment_ids
  ends_BT = jnp.concatenate(
    [segment_BT[:, 1:] != segment_BT[:, :-1], jnp.ones_like(segment_BT[:, :1], bool)], 1
  )
  at_BT = jnp.where(ends_BT, jnp.arange(T, dtype=jnp.int32)[None], T)
  last_BT = jax.lax.cummin(at_BT, axis=1, reverse=True)
  return jnp.take_along_axis(info.positions, last_BT, 1) + 1
