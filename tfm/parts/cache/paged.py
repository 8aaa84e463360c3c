"""A paged cache: blocks of slots from a shared pool."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.cache.base import (
  Cache,
  cast_like,
  empty_info,
  mask_from,
  nbytes,
  slot_numbers,
  with_stored_extras,
  zeros,
)
from tfm.parts.tokeninfo import TokenInfo


@struct.dataclass
class Pages:
  """The store of a paged cache.

  Attributes:
    arrays: the pool, `[blocks, block, ...]` by name; arrays with heads are `[blocks, K, block,
      ...]`.
    info: the tokens of the pool, `[blocks, block]`.
    table: int32 `[B, n]`, the blocks of each sequence. An entry of `blocks` or more is unused and
      is not written to.
  """

  arrays: dict[str, jax.Array]
  info: TokenInfo
  table: jax.Array


@dataclasses.dataclass(frozen=True)
class PagedCache(Cache):
  """A paged cache of fixed-size blocks from a shared pool (arXiv:2309.06180).

  Token n of sequence b is in slot n % `block` of block `table[b, n // block]`. Initially every
  sequence has its own blocks. In `tfm.generate`, a `BlockAllocator` hands out blocks as sequences
  grow. Sequences share the full blocks of a common prompt prefix, and beams also share full blocks
  of new tokens. `set_tables` and `regroup` install the tables. Each step gathers a copy of all keys
  and values; reordering beams copies one block per sequence.

  Attributes:
    block: the number of tokens in a block.
    blocks: the size of the pool once prompts are prefilled; None: enough to fill every sequence.
  """

  block: int = 16
  blocks: int | None = None

  def check(self) -> Iterator[str]:
    if self.block < 1 or (self.blocks is not None and self.blocks < 1):
      yield (
        f'block={self.block}, blocks={self.blocks} must be positive. '
        'Expected at least 1, or blocks=none.'
      )

  def init(self, arrays, B, S, lookback, extras):
    n = -(-S // self.block)
    pool = self.blocks or B * n
    table = jnp.minimum(jnp.arange(B * n, dtype=jnp.int32), pool).reshape(B, n)
    empty = {name: _heads_first(a) for name, a in zeros(arrays, (pool, self.block)).items()}
    return Pages(empty, empty_info((pool, self.block), extras), table)

  def write(self, store, new, info, count_B, lookback):
    B, T = info.positions.shape
    number_BT, count_B = slot_numbers(info, count_B)
    pool, block = store.info.positions.shape
    at_BT = _entries(store.table, number_BT // block, pool)
    # Indices beyond the pool must also be unique for the scatter.
    beyond_BT = pool + jnp.arange(B * T, dtype=jnp.int32).reshape(B, T)
    at_BT, in_BT = jnp.where(at_BT < pool, at_BT, beyond_BT), number_BT % block

    def put(old, part):
      where = (at_BT, in_BT) if old.ndim < 4 else (at_BT, slice(None), in_BT)
      return old.at[where].set(part.astype(old.dtype), mode='drop', unique_indices=True)

    arrays, infos = jax.tree.map(
      put, (store.arrays, store.info), (new, with_stored_extras(info, store.info))
    )
    seen, info = jax.tree.map(lambda a: _rows(a, store.table), (arrays, infos))
    number_BS = jnp.broadcast_to(jnp.arange(info.positions.shape[1])[None], info.positions.shape)
    return (
      cast_like(seen, new),
      mask_from(info, number_BS, count_B),
      store.replace(arrays=arrays, info=infos),
    )

  def select(self, store, index_B):
    # Every sequence gets a copy of its blocks; `tfm.generate.prefix_sharing` does the sharing.
    B, n = len(index_B), store.table.shape[1]
    copied = lambda a: jnp.take(a, store.table[index_B].reshape(B * n), axis=0, mode='clip')
    arrays, info = jax.tree.map(copied, (store.arrays, store.info))
    return Pages(arrays, info, jnp.arange(B * n, dtype=jnp.int32).reshape(B, n))

  def follow(self, store, index_B, count_B):
    # Full blocks are never written again, so they can be shared. From the block of the next token
    # on, each sequence keeps its own blocks: every column of the table has one for every sequence,
    # so none has to be allocated or freed.
    own, theirs, next_B = store.table, store.table[index_B], count_B // self.block
    pool = len(store.info.positions)
    target_B, source_B = _entries(own, next_B, pool), _entries(theirs, next_B, pool)
    copy = lambda a: a.at[target_B].set(jnp.take(a, source_B, axis=0, mode='clip'), mode='drop')
    arrays, info = jax.tree.map(copy, (store.arrays, store.info))
    full_Bn = jnp.arange(own.shape[1])[None] < next_B[:, None]
    return Pages(arrays, info, jnp.where(full_Bn, theirs, own))

  @property
  def roomy(self):
    return dataclasses.replace(self, blocks=None)

  def bytes(self, arrays, S, lookback):
    return -(-S // self.block) * self.block * nbytes(arrays)


def _heads_first(a: jax.Array) -> jax.Array:
  """Swap the block and head axes: `[..., block, K, H]` to `[..., K, block, H]` or back.

  Arrays without heads are returned unchanged.
  """
  return jnp.swapaxes(a, 1, 2) if a.ndim > 3 else a


def _entries(table: jax.Array, column: jax.Array, none: int) -> jax.Array:
  """Return the table entry at each column `[B, ...]`; `none` where there is no such column."""
  return jax.vmap(lambda row, i: jnp.take(row, i, mode='fill', fill_value=none))(table, column)


def _rows(pool: jax.Array, table: jax.Array) -> jax.Array:
  """Return `[B, S, ...]`: the blocks of each sequence, concatenated.

  The content of unused table entries is undefined; masks hide it.
  """
  B, n = table.shape
  if pool.ndim < 4:
    return jnp.take(pool, table, axis=0, mode='clip').reshape(B, n * pool.shape[1], *pool.shape[2:])
  K, block, *own = pool.shape[1:]
  # Gather each head of a block separately, so that the tokens of a head are contiguous.
  index_BKn = table[:, None] * K + jnp.arange(K, dtype=jnp.int32)[None, :, None]
  gathered = jnp.take(pool.reshape(-1, block, *own), index_BKn, axis=0, mode='clip')
  return _heads_first(gathered.reshape(B, K, n * block, *own))


def regroup(store: Pages, origin: jax.Array, table: jax.Array) -> Pages:
  """Return the store with another table and pool.

  Args:
    store: the store.
    origin: block i of the new pool is a copy of block `origin[i]`.
    table: int32 `[B, n]`, the blocks of each sequence in the new pool.

  Returns:
    The new store.
  """
  arrays, info = jax.tree.map(
    lambda a: jnp.take(a, origin, axis=0, mode='clip'), (store.arrays, store.info)
  )
  return Pages(arrays, info, table.astype(jnp.int32))


def set_tables(tree: Any, table: jax.Array, source: jax.Array, target: jax.Array) -> Any:
  """Return a cache in which every `Pages` has this table, after copying some blocks.

  Args:
    tree: a cache, or any tree with `Pages`.
    table: int32 `[B, n]`, the new table.
    source: the blocks to copy from.
    target: the blocks to copy to. An entry beyond the pool copies nothing, so that one compiled
      function with a fixed number of copies serves any smaller number.

  Returns:
    The tree with new `Pages`.
  """

  def one(pages: Pages) -> Pages:
    copy = lambda a: a.at[target].set(a[source], mode='drop')
    if pages.table.ndim == 3:
      copy = jax.vmap(copy)
    arrays, info = jax.tree.map(copy, (pages.arrays, pages.info))
    shape = (*pages.table.shape[:-2], *table.shape)
    return Pages(arrays, info, jnp.broadcast_to(table.astype(jnp.int32), shape))

  is_pages = lambda x: isinstance(x, Pages)
  return jax.tree.map(lambda x: one(x) if is_pages(x) else x, tree, is_leaf=is_pages)
