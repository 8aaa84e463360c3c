"""LongT5's transient-global attention: local attention and block sums."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.context import Ctx
from tfm.parts.encoder_only import check_uncached
from tfm.parts.mask.base import Mask
from tfm.parts.mask.segments import Segments
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.mixer.masked import BeyondTheMask
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.tokeninfo import TokenInfo, positions


@dataclasses.dataclass(frozen=True)
class Transient(BeyondTheMask, Attention):
  """Local attention, and attention to normalised sums of all blocks (LongT5, arXiv:2112.07916).

  Each block of `pool` tokens of the document gives one more key and value from norm(sum of its x),
  with the projections of tokens, in every layer. Leftover tokens at the end of a document belong to
  its last block; a document shorter than a block has none. `T5Bias` with `blocks` uses block
  numbers; other relative positions place a block at its last token without leftovers. It costs
  attention to n / `pool` more tokens.

  Attributes:
    mask: the mask of local attention.
    pool: the block size, in tokens.
    norm: the norm of block sums.

  Note:
    Blocks start at the first token of a document. In Hugging Face they start at the sequence, which
    begins with padding if it is on the left.
  """

  mask: Mask = Window(128, ahead=True)
  _: dataclasses.KW_ONLY
  pool: int = 16
  norm: Norm = RMSNorm()

  joined = ()  # keys and values are also made of blocks

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.pool < 1:
      yield f'pool={self.pool} is not a block size. Expected at least 1 token.'

  def make(self, dims):
    return _Transient(self, dims)

  def pairs(self, length):
    return super().pairs(length) + length // self.pool

  def flops(self, d_model, pairs):
    _, K, H = self.sizes(d_model)
    return super().flops(d_model, pairs) + 4 * d_model * K * H / self.pool

  @property
  def effective_mask(self):
    return _TokensAndBlocks(self.mask)

  @property
  def provides(self):
    return frozenset({'block'})


@dataclasses.dataclass(frozen=True)
class _TokensAndBlocks(Mask):
  """The tokens that `mask` allows, and all blocks of the document."""

  mask: Mask

  def __call__(self, q, k):
    return Segments()(q, k) & (self.mask(q, k) | (k.extras['block'] >= 0))


class _Transient(_Attention):
  spec: Transient

  def sources(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, TokenInfo, TokenInfo]:
    check_uncached(ctx.slot is not None, 'transient', 'block sums depend on later tokens')
    s, info = self.spec, ctx.info
    M = x_BTD.shape[1] // s.pool
    block_BT, slot_BT, ends_BT = _blocks(info.segment_ids, s.pool)

    def put(a: jax.Array, at_BT: jax.Array) -> jax.Array:
      # Slot M collects the tokens to drop.
      one = lambda a, at: jnp.zeros((M + 1, *a.shape[1:]), a.dtype).at[at].add(a)[:M]
      return jax.vmap(one)(a, at_BT)

    sums_BMD = put(x_BTD.astype(jnp.float32), jnp.where(block_BT < 0, M, slot_BT))
    sums_BMD = sums_BMD.astype(x_BTD.dtype)
    end_BT = jnp.where(ends_BT, slot_BT, M)
    last = jax.tree.map(lambda a: put(a.astype(jnp.int32), end_BT).astype(a.dtype), info)
    number_BM = put(block_BT, end_BT)
    both = lambda tokens, blocks: jnp.concatenate([tokens, blocks], 1)
    k_info = jax.tree.map(both, info, last).with_extras(
      block=both(jnp.full_like(block_BT, -1), number_BM)
    )
    blocks_BMD = s.norm.make(self.dims).copy(name='norm')(sums_BMD)
    return both(x_BTD, blocks_BMD), info.with_extras(block=block_BT), k_info


def _blocks(segment_BT: jax.Array, pool: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Return block numbers, block slots and block ends of all tokens, `[B, T]`.

  The number is that of the token's block in its document (-1: none), the slot its index in the
  sequence. The third result is True for the token that completes a block.
  """
  place_BT, real_BT = positions(segment_BT), segment_BT > 0
  ends_BT = real_BT & (place_BT % pool == pool - 1)
  completed_BT = jnp.cumsum(ends_BT, axis=1, dtype=jnp.int32)
  # Blocks of documents before this one.
  before_BT = completed_BT - jnp.where(real_BT, (place_BT + 1) // pool, 0)
  stops_BT = jnp.concatenate(
    [segment_BT[:, 1:] != segment_BT[:, :-1], jnp.ones_like(real_BT[:, :1])], 1
  )
  far = jnp.iinfo(jnp.int32).max
  at_stop_BT = jax.lax.cummin(jnp.where(stops_BT, completed_BT, far), axis=1, reverse=True)
  block_BT = jnp.where(real_BT, jnp.minimum(place_BT // pool, at_stop_BT - before_BT - 1), -1)
  return block_BT, before_BT + block_BT, ends_BT
