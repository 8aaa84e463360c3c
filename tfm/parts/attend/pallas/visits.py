"""The tiles in which something is seen, as a list that a kernel's grid goes through."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.tokeninfo import TokenInfo

#: How many visits are told apart by row of the batch; more are shared by its rows. They live in
#: scalar memory.
APART = 2**14
_COLUMN, _KIND = 15, 2


class Visits(NamedTuple):
  """For each row of the batch (or for all), the tiles to visit in their order, and how many at
  most.

  A visit is a number: the row of tiles, the column, and whether nothing, something or all of the
  tile is seen. Every row is visited, so that every row has a result. The list goes on past its end
  with its last tile."""

  code: jax.Array  # int32 [rows of the batch or 1, tiles]
  most: jax.Array


def kinds(
  mask: Callable[[TokenInfo, TokenInfo], jax.Array],
  q: TokenInfo,
  k: TokenInfo,
  size: int,
  width: int,
  S: int,
) -> jax.Array:
  """int32 `[B, tiles of queries, tiles of keys]`: 0 where nobody sees anybody, 2 where everybody
  sees all, else 1.

  Keys from S on are padding.
  """
  B, columns = k.positions.shape[0], k.positions.shape[1] // width
  real = (jnp.arange(k.positions.shape[1]) < S)[None, None]

  def kind(q_i: TokenInfo) -> jax.Array:
    ok = mask(q_i.rows(), k.columns()) & real
    ok = jnp.broadcast_to(ok, (B, size, columns * width)).reshape(B, size, columns, width)
    return ok.any((1, 3)).astype(jnp.int32) + ok.all((1, 3)).astype(jnp.int32)

  tiles = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(B, -1, size), 1, 0), q)
  return jnp.moveaxis(jax.lax.map(kind, tiles), 0, 1)


def listed(kinds: jax.Array) -> Visits:
  """The visits of `[B, rows, columns]` tiles, row by row."""
  if kinds.size > APART:
    all_seen, seen = (kinds == 2).all(0, keepdims=True), (kinds > 0).any(0, keepdims=True)
    kinds = seen.astype(jnp.int32) + all_seen
  B, rows, columns = kinds.shape
  first = (jnp.arange(columns) == 0)[None, None]
  keep = ((kinds > 0) | (first & ~(kinds > 0).any(2, keepdims=True))).reshape(B, -1)
  row, column = jnp.divmod(jnp.arange(rows * columns), columns)
  code = ((row << _COLUMN | column) << _KIND)[None] | kinds.reshape(B, -1)
  code = jnp.take_along_axis(code, jnp.argsort(~keep, axis=1, stable=True), 1)
  count = keep.sum(1, keepdims=True)
  last = jnp.take_along_axis(code, count - 1, 1) >> _KIND << _KIND
  code = jnp.where(jnp.arange(rows * columns)[None] < count, code, last)
  return Visits(code.astype(jnp.int32), count.max().astype(jnp.int32))


def decoded(code: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(row, column, kind) of a visit."""
  return (
    code >> (_COLUMN + _KIND),
    (code >> _KIND) & ((1 << _COLUMN) - 1),
    code & ((1 << _KIND) - 1),
  )
