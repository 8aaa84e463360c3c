"""Local attention that sees the whole text through the sums of its blocks (LongT5's
transient-global).
"""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.context import Ctx
from tfm.parts.mask.base import Mask
from tfm.parts.mask.segments import Segments
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.tokeninfo import TokenInfo, positions


@dataclasses.dataclass(frozen=True)
class Transient(Attention):
  """Attention to the tokens that the mask shows and, as to one more token each, to norm(sum of the
  x of a block), for every block of `pool` tokens of the document (arXiv:2112.07916).

  What is left over at the end of a document belongs to its last block; a document shorter than a
  block has none. The blocks are made anew in each layer, with the tokens' own projections. A
  relative position that tells of blocks (`T5Bias.blocks`) is told their numbers; others take a
  block to stand where its last token but leftovers does.

  *Cost*: as attention to n / `pool` tokens more. *Differs*: blocks are counted from a document's
  first token, where transformers count from the row's, which is padding if that is on the left."""

  mask: Mask = Window(128, ahead=True)
  _: dataclasses.KW_ONLY
  pool: int = 16
  norm: Norm = RMSNorm()

  joined = ()  # keys and values are made of blocks too

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.pool < 1:
      yield f'pool={self.pool} is no block. Expected at least 1 token.'

  def make(self, dims):
    return _Transient(self, dims)

  def pairs(self, length):
    return super().pairs(length) + length // self.pool

  def flops(self, d_model, pairs):
    _, K, H = self.sizes(d_model)
    return super().flops(d_model, pairs) + 4 * d_model * K * H / self.pool

  @property
  def effective_mask(self):
    return _Sight(self.mask)

  @property
  def causal(self):
    return False

  @property
  def lookback(self):
    return None

  @property
  def provides(self):
    return frozenset({'block'})

  @property
  def masked(self):
    return False


@dataclasses.dataclass(frozen=True)
class _Sight(Mask):
  """Of tokens those that `mask` shows, and all blocks of the document."""

  mask: Mask

  def __call__(self, q, k):
    return Segments()(q, k) & (self.mask(q, k) | (k.extras['block'] >= 0))


class _Transient(_Attention):
  spec: Transient

  def sources(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, TokenInfo, TokenInfo]:
    if ctx.slot is not None:
      raise errors.UserError(
        'transient: a block tells of all of its tokens at once, and no cache is kept. '
        'Expected an encoder, without a cache.'
      )
    s, info = self.spec, ctx.info
    M = x_BTD.shape[1] // s.pool
    block_BT, slot_BT, ends_BT = _blocks(info.segment_ids, s.pool)
    # Beyond the last slot is nowhere.
    put = lambda a, at_BT: jax.vmap(
      lambda a, at: jnp.zeros((M + 1, *a.shape[1:]), a.dtype).at[at].add(a)[:M]
    )(a, at_BT)
    sums_BMD = put(x_BTD.astype(jnp.float32), jnp.where(block_BT < 0, M, slot_BT)).astype(
      x_BTD.dtype
    )
    last = jax.tree.map(
      lambda a: put(a.astype(jnp.int32), jnp.where(ends_BT, slot_BT, M)).astype(a.dtype), info
    )
    number_BM = put(block_BT, jnp.where(ends_BT, slot_BT, M))
    both = lambda tokens, blocks: jnp.concatenate([tokens, blocks], 1)
    k_info = jax.tree.map(both, info, last).with_extras(
      block=both(jnp.full_like(block_BT, -1), number_BM)
    )
    blocks_BMD = s.norm.make(self.dims).copy(name='norm')(sums_BMD)
    return both(x_BTD, blocks_BMD), info.with_extras(block=block_BT), k_info


def _blocks(segment_BT: jax.Array, pool: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Each token's block in its document (-1: none), the place of that among the row's, and which
  token fills it up.
  """
  place_BT, real_BT = positions(segment_BT), segment_BT > 0
  ends_BT = real_BT & (place_BT % pool == pool - 1)
  so_far_BT = jnp.cumsum(ends_BT, axis=1, dtype=jnp.int32)
  # Blocks of documents before this one.
  before_BT = so_far_BT - jnp.where(real_BT, (place_BT + 1) // pool, 0)
  stops_BT = jnp.concatenate(
    [segment_BT[:, 1:] != segment_BT[:, :-1], jnp.ones_like(real_BT[:, :1])], 1
  )
  far = jnp.iinfo(jnp.int32).max
  at_stop_BT = jax.lax.cummin(jnp.where(stops_BT, so_far_BT, far), axis=1, reverse=True)
  block_BT = jnp.where(real_BT, jnp.minimum(place_BT // pool, at_stop_BT - before_BT - 1), -1)
  return block_BT, before_BT + block_BT, ends_BT
