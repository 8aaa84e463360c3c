"""Hierarchical attention: the current block token by token, earlier blocks as means."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tfm.parts.mask.base import Mask
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Hierarchical(Attention):
  """Attention within a block, and to the mean key and value of each earlier block of the document.

  Within its block a query attends where the mask allows. There are at most n b + n^2 / (2 b) pairs
  for b = `block`, so O(n sqrt n) for b near sqrt n. A document of one block has plain attention. A
  summary has the token info of the last token of its block. Means are of rotated keys, and only of
  complete blocks.

  A pair costs 4 N H FLOPs. Summaries are recomputed from all cached tokens. In captured attentions
  they follow the tokens.

  Attributes:
    block: b, the block size, in tokens.
  """

  block: int = dataclasses.field(default=128, kw_only=True)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.block < 1:
      yield f'block={self.block} is not a block size. Expected at least 1 token.'

  def make(self, dims):
    return _Hierarchical(self, dims)

  def pairs(self, length):
    earlier = int((np.arange(length) // self.block).sum())
    return ((self.mask & _SameBlock(self.block)).pairs(length) + earlier) / length

  def flops(self, d_model, pairs):
    _, K, H = self.sizes(d_model)
    return super().flops(d_model, pairs) + 2 * K * H

  @property
  def effective_mask(self):
    return _BlocksAndSummaries(self.mask, self.block)

  @property
  def lookback(self):
    return None

  @property
  def masked(self):
    return False


@dataclasses.dataclass(frozen=True)
class _SameBlock(Mask):
  """Keys of the same block."""

  block: int

  def __call__(self, q, k):
    return q.positions // self.block == k.positions // self.block

  def reach(self, i_T, n):
    first = i_T // self.block * self.block
    return first, first + self.block


@dataclasses.dataclass(frozen=True)
class _BlocksAndSummaries(Mask):
  """Tokens of the same block that `mask` allows, and summaries of earlier blocks."""

  mask: Mask
  block: int

  def __call__(self, q, k):
    own = (self.mask & _SameBlock(self.block))(q, k)
    earlier = k.positions // self.block < q.positions // self.block
    return Segments()(q, k) & jnp.where(k.extras['block'] < 0, own, earlier)


class _Hierarchical(_Attention):
  spec: Hierarchical

  def expand_keys(
    self, k_BSKH: jax.Array, v_BSKH: jax.Array, info: TokenInfo
  ) -> tuple[jax.Array, jax.Array, TokenInfo]:
    b = self.spec.block
    source_BMb, whole_BM = _blocks(info, b)
    of = lambda a, index_BM: jax.vmap(lambda row, index: row[index])(a, index_BM)
    mean = lambda a: of(a, source_BMb).astype(jnp.float32).mean(2).astype(a.dtype)
    last = jax.tree.map(lambda a: of(a, source_BMb[..., -1]), info)
    last = dataclasses.replace(last, segment_ids=jnp.where(whole_BM, last.segment_ids, 0))
    both = lambda tokens, summaries: jnp.concatenate([tokens, summaries], 1)
    block = both(jnp.full_like(info.positions, -1), last.positions // b)
    k_info = jax.tree.map(both, info, last).with_extras(block=block)
    return both(k_BSKH, mean(k_BSKH)), both(v_BSKH, mean(v_BSKH)), k_info


def _blocks(info: TokenInfo, b: int) -> tuple[jax.Array, jax.Array]:
  """Return the complete blocks: token indices, int32 `[B, S // b, b]`, and which entries are valid.

  Tokens may be in any order, as in a cache.
  """
  S = info.positions.shape[1]
  at_BS = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), info.positions.shape)
  segment_BS, pos_BS, source_BS = jax.lax.sort(
    (info.segment_ids, info.positions, at_BS), dimension=1, num_keys=2
  )
  follows = lambda a, by: jnp.pad(a[:, 1:] == a[:, :-1] + by, [(0, 0), (1, 0)])
  run_BS = at_BS - jax.lax.cummax(
    jnp.where(follows(segment_BS, 0) & follows(pos_BS, 1), 0, at_BS), axis=1
  )
  ends_BS = (segment_BS > 0) & (pos_BS % b == b - 1) & (run_BS >= b - 1)
  end_BM = jnp.argsort(~ends_BS, axis=1, stable=True)[:, : S // b]
  whole_BM = jnp.take_along_axis(ends_BS, end_BM, 1)
  member = jnp.maximum(end_BM[..., None] - jnp.arange(b)[None, None, ::-1], 0)
  return jax.vmap(lambda row, index: row[index])(source_BS, member), whole_BM
