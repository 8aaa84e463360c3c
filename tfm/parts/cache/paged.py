"""Blocks of slots from one pool, found through a table a row, so that rows may share them
(arXiv:2309.06180).
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.cache.base import (
  Cache,
  before,
  empty_info,
  in_dtypes_of,
  like,
  nbytes,
  numbers,
  zeros,
)
from tfm.parts.tokeninfo import TokenInfo


@struct.dataclass
class Pages:
  """A pool of blocks `[blocks, block, ...]`, heads first, and for each row the blocks of its
  tokens, `[B, row blocks]`.

  An entry of the table that is no block (`blocks` or more) holds nothing and is not written to.
  """

  arrays: dict[str, jax.Array]
  info: TokenInfo
  table: jax.Array


@dataclasses.dataclass(frozen=True)
class PagedCache(Cache):
  """Token n of a row in place n % `block` of block `table[row, n // block]`.

  A row has its own blocks to begin with; `tfm.generate.block_allocator.Blocks` hands them out as
  rows grow and shares them among rows that begin alike, and `laid` or `spread` bring a cache its
  tables. `blocks` is the size of the pool, None as many as all rows can fill. In `tfm.generate`
  rows share the full blocks of what their prompts begin with, and beams those of new tokens too; it
  has so many blocks once the prompts are read.

  *Cost*: what is looked at is gathered, a copy of all rows a step. Beams in a new order copy one
  block a row."""

  block: int = 16
  blocks: int | None = None

  def check(self) -> Iterator[str]:
    if self.block < 1 or (self.blocks is not None and self.blocks < 1):
      yield f'block={self.block}, blocks={self.blocks} is no size. Expected at least 1 of each, or no blocks.'

  def init(self, arrays, B, S, lookback, extras):
    n = -(-S // self.block)
    pool = self.blocks or B * n
    table = jnp.minimum(jnp.arange(B * n, dtype=jnp.int32), pool).reshape(B, n)
    empty = {name: _heads_first(a) for name, a in zeros(arrays, (pool, self.block)).items()}
    return Pages(empty, empty_info((pool, self.block), extras), table)

  def write(self, store, new, info, count_B, lookback):
    B, T = info.positions.shape
    number_BT, count_B = numbers(info, count_B)
    pool, block = store.info.positions.shape
    at_BT = _entries(store.table, number_BT // block, pool)
    # Places that are nowhere are distinct all the same.
    beyond_BT = pool + jnp.arange(B * T, dtype=jnp.int32).reshape(B, T)
    at_BT, in_BT = jnp.where(at_BT < pool, at_BT, beyond_BT), number_BT % block

    def put(old, part):
      where = (at_BT, in_BT) if old.ndim < 4 else (at_BT, slice(None), in_BT)
      return old.at[where].set(part.astype(old.dtype), mode='drop', unique_indices=True)

    arrays, infos = jax.tree.map(put, (store.arrays, store.info), (new, like(info, store.info)))
    seen, info = jax.tree.map(lambda a: _rows(a, store.table), (arrays, infos))
    number_BS = jnp.broadcast_to(jnp.arange(info.positions.shape[1])[None], info.positions.shape)
    return (
      in_dtypes_of(seen, new),
      before(info, number_BS, count_B),
      store.replace(arrays=arrays, info=infos),
    )

  def rows(self, store, index_B):
    # Every row gets a copy of its blocks: what may be shared, `tfm.generate.prefix_sharing` knows.
    B, n = len(index_B), store.table.shape[1]
    copied = lambda a: jnp.take(a, store.table[index_B].reshape(B * n), axis=0, mode='clip')
    arrays, info = jax.tree.map(copied, (store.arrays, store.info))
    return Pages(arrays, info, jnp.arange(B * n, dtype=jnp.int32).reshape(B, n))

  def follow(self, store, index_B, count_B):
    # Nobody writes to a full block, so others may read it. The blocks of the next token and of
    # later ones stay each row's own: as there is one for every row in each column of the table,
    # none need be looked for or given back.
    own, theirs, next_B = store.table, store.table[index_B], count_B // self.block
    target_B, source_B = (
      _entries(table, next_B, len(store.info.positions)) for table in (own, theirs)
    )
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
  """Numbers of tokens, `[..., block, K, H]`, as `[..., K, block, H]`, and back; what has no heads
  stays as it is.
  """
  return jnp.swapaxes(a, 1, 2) if a.ndim > 3 else a


def _entries(table: jax.Array, column: jax.Array, none: int) -> jax.Array:
  """What stands in columns `[B, ...]` of the table, each of its row; `none` where there is no such
  column.
  """
  return jax.vmap(lambda row, i: jnp.take(row, i, mode='fill', fill_value=none))(table, column)


def _rows(pool: jax.Array, table: jax.Array) -> jax.Array:
  """`[B, S, ...]`: each row's blocks one after another. Those that are none give anything."""
  B, n = table.shape
  if pool.ndim < 4:
    return jnp.take(pool, table, axis=0, mode='clip').reshape(B, n * pool.shape[1], *pool.shape[2:])
  K, block, *own = pool.shape[1:]
  # A block's heads are looked up each by itself, so that they come to stand where products read
  # them.
  index_BKn = table[:, None] * K + jnp.arange(K, dtype=jnp.int32)[None, :, None]
  found = jnp.take(pool.reshape(-1, block, *own), index_BKn, axis=0, mode='clip')
  return _heads_first(found.reshape(B, K, n * block, *own))


def spread(store: Pages, origin: jax.Array, table: jax.Array) -> Pages:
  """Rows with this table over another pool, whose block i is a copy of block `origin[i]`."""
  arrays, info = jax.tree.map(
    lambda a: jnp.take(a, origin, axis=0, mode='clip'), (store.arrays, store.info)
  )
  return Pages(arrays, info, table.astype(jnp.int32))


def laid(tree: Any, table: jax.Array, source: jax.Array, target: jax.Array) -> Any:
  """A cache (or any tree) in which all `Pages` have this table, blocks `source` copied to blocks
  `target` before.

  A target that is no block copies nothing, so that a fixed number of copies, compiled once, serves
  any."""

  def one(pages: Pages) -> Pages:
    copy = lambda a: a.at[target].set(a[source], mode='drop')
    if pages.table.ndim == 3:
      copy = jax.vmap(copy)
    arrays, info = jax.tree.map(copy, (pages.arrays, pages.info))
    return Pages(
      arrays,
      info,
      jnp.broadcast_to(table.astype(jnp.int32), (*pages.table.shape[:-2], *table.shape)),
    )

  is_pages = lambda x: isinstance(x, Pages)
  return jax.tree.map(lambda x: one(x) if is_pages(x) else x, tree, is_leaf=is_pages)
