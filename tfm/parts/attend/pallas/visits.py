"""The list of tiles that a kernel visits."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.tokeninfo import TokenInfo

#: The maximum number of visits with a list per sequence. Beyond it all sequences share one list, to
#: fit into scalar memory.
MAX_SEPARATE = 2**14
#: The number of bits of the column and of the kind in an encoded visit.
_COLUMN, _KIND = 15, 2


class Visits(NamedTuple):
  """The tiles to visit, in order, for each sequence or for all.

  A visit is encoded in one int32: the row and column of the tile, and its kind (0 masked out, 1
  mixed, 2 all pairs allowed). Every row has at least one visit, so that its result is written. The
  end of a shorter list is filled with its last tile, as kind 0.

  Attributes:
    code: int32 `[sequences or 1, tiles]`.
    longest: the length of the longest list.
  """

  code: jax.Array
  longest: jax.Array


def tile_kinds(
  mask: Callable[[TokenInfo, TokenInfo], jax.Array],
  q: TokenInfo,
  k: TokenInfo,
  size: int,
  width: int,
  S: int,
) -> jax.Array:
  """Return the kind of every tile: 0 if masked out, 2 if all pairs are allowed, else 1.

  Args:
    mask: the mask.
    q: token info of the queries, padded to whole tiles.
    k: token info of the keys, padded to whole tiles.
    size: the number of queries in a tile.
    width: the number of keys in a tile.
    S: the number of keys without padding.

  Returns:
    int32 `[B, tiles of queries, tiles of keys]`.
  """
  B, columns = k.positions.shape[0], k.positions.shape[1] // width
  real = (jnp.arange(k.positions.shape[1]) < S)[None, None]

  def kind(q_i: TokenInfo) -> jax.Array:
    ok = mask(q_i.rows(), k.columns()) & real
    ok = jnp.broadcast_to(ok, (B, size, columns * width)).reshape(B, size, columns, width)
    return ok.any((1, 3)).astype(jnp.int32) + ok.all((1, 3)).astype(jnp.int32)

  tiles = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(B, -1, size), 1, 0), q)
  return jnp.moveaxis(jax.lax.map(kind, tiles), 0, 1)


def list_visits(kinds: jax.Array) -> Visits:
  """Return the visits of tiles `[B, rows, columns]`, row by row."""
  if kinds.size > MAX_SEPARATE:
    everywhere, anywhere = (kinds == 2).all(0, keepdims=True), (kinds > 0).any(0, keepdims=True)
    kinds = anywhere.astype(jnp.int32) + everywhere
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


def decode(code: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Return (row, column, kind) of an encoded visit."""
  return (
    code >> (_COLUMN + _KIND),
    (code >> _KIND) & ((1 << _COLUMN) - 1),
    code & ((1 << _KIND) - 1),
  )
