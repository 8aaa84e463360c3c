"""Blocks of keys given as an array."""

from collections.abc import Iterator
import dataclasses

import jax.numpy as jnp

from tfm.parts.mask.base import Mask, pairs_by_block

# Bits of an int32 that are shifted without regard to its sign.
_BITS = 30


@dataclasses.dataclass(frozen=True)
class Blocks(Mask):
  """Query block i sees key block j where `rows[i][j]` is '1': `blocks(rows=(100, 110, 011),
  block=64)`.

  Blocks have `block` tokens; what comes after the last one belongs to it. A block that sees itself
  sees all of itself: join with `causal` for a decoder.

  *Cost*: n ceil(n / 30) selections a query, which are no gather, so that kernels can run them on
  tiles: rows by the dozen, not by the thousand."""

  rows: tuple[str, ...] = ('10', '11')
  block: int = 64

  def __call__(self, q, k):
    last = len(self.rows) - 1
    row, column = (jnp.minimum(info.positions // self.block, last) for info in (q, k))
    ok = jnp.zeros(jnp.broadcast_shapes(row.shape, column.shape), bool)
    for start in range(0, len(self.rows), _BITS):
      word = jnp.zeros_like(row)
      for i, text in enumerate(self.rows):
        bits = text[start : start + _BITS][::-1]
        word = jnp.where(row == i, int(bits, 2), word)
      ok |= (column // _BITS == start // _BITS) & ((word >> (column % _BITS)) & 1 == 1)
    return ok

  def reach(self, i_T, n):
    return None

  def pairs(self, n):
    return pairs_by_block(self, n, self.block)

  def check(self) -> Iterator[str]:
    if self.block < 1:
      yield f'block={self.block} is no block. Expected at least 1 token.'
    if not self.rows or any(
      len(row) != len(self.rows) or set(row) - {'0', '1'} for row in self.rows
    ):
      yield f'rows={self.rows} is no square of 0 and 1. Expected as many rows as columns, such as (10, 11).'
