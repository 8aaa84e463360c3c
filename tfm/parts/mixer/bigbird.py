"""Block-sparse attention of BigBird, as transformers computes it."""

from collections.abc import Iterator
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from tfm.parts.context import Ctx
from tfm.parts.encoder_only import check_uncached
from tfm.parts.mask.base import Mask
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.mixer.masked import BeyondTheMask
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class BigBirdAttention(BeyondTheMask, Attention):
  """Attention to the own, adjacent, first and last blocks of a document (arXiv:2007.14062).

  The first and the last block attend to all tokens. Documents of at most (5 + 2 `random`) `block`
  tokens have full attention. Kernels that skip masked tiles compute O(T) of them.

  Note:
    In the paper, a block also attends to `random` other blocks, which every layer samples.
    transformers selects the first block each time outside of training. So for inner blocks the keys
    of the first block have 1 + `random` times their weight, here too. `mask=bigbird` samples
    blocks. In padded sequences, transformers uses the last block of the padded length; here it is
    the last block of the document.

  Attributes:
    mask: an additional attention mask.
    block: number of tokens of a block.
    random: number of additional times that the keys of the first block are counted.
  """

  mask: Mask = Mask()
  block: int = dataclasses.field(default=64, kw_only=True)
  random: int = dataclasses.field(default=3, kw_only=True)

  def make(self, dims):
    return _BigBird(self, dims)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.block < 1 or self.random < 0:
      yield (
        f'block={self.block}, random={self.random} are not sizes. '
        'Expected at least 1 and at least 0.'
      )

  def pairs(self, length):
    n = -(-length // self.block)
    if length <= self.full:
      return super().pairs(length)
    return min(super().pairs(length), (2 * n + 2 * 4 + (n - 4) * 5) * self.block / n)

  @property
  def full(self) -> int:
    """Number of tokens of the longest document with full attention."""
    return (5 + 2 * self.random) * self.block

  @property
  def effective_mask(self):
    return _BlockSparse(self.mask, self.block, self.full)

  @property
  def provides(self):
    return frozenset({'length'})


@dataclasses.dataclass(frozen=True)
class _BlockSparse(Mask):
  """Block-sparse mask of documents longer than `full`, combined with `mask`."""

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
    check_uncached(ctx.slot is not None, 'bigbird', 'tokens attend to the last block')
    info = ctx.info.with_extras(length=_lengths(ctx.info))
    return x_BTD, info, info

  def biases(self, relative, n_heads: int) -> tuple:
    return (*super().biases(relative, n_heads), functools.partial(self._repeated, n_heads))

  def _repeated(self, n_heads: int, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """Return the bias of repeated keys, `[B, N, T, S]`: log(1 + random), elsewhere 0."""
    q, k, s = q.rows(), k.columns(), self.spec
    row, last = q.positions // s.block, (q.extras['length'] - 1) // s.block
    inner, first = (row > 0) & (row < last), k.positions // s.block == 0
    repeated = (q.extras['length'] > s.full) & inner & first
    bias_BTS = jnp.where(repeated, math.log(1 + s.random), 0.0)
    return jnp.broadcast_to(bias_BTS[:, None], (len(bias_BTS), n_heads, *bias_BTS.shape[1:]))


def _lengths(info: TokenInfo) -> jax.Array:
  """Return the length of the document of each token, int32 `[B, T]`."""
  T = info.positions.shape[1]
  segment_BT = info.segment_ids
  ends_BT = jnp.concatenate(
    [segment_BT[:, 1:] != segment_BT[:, :-1], jnp.ones_like(segment_BT[:, :1], bool)], 1
  )
  at_BT = jnp.where(ends_BT, jnp.arange(T, dtype=jnp.int32)[None], T)
  last_BT = jax.lax.cummin(at_BT, axis=1, reverse=True)
  return jnp.take_along_axis(info.positions, last_BT, 1) + 1
