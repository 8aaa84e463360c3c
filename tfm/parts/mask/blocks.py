"""A block-sparse mask from a given pattern."""

from collections.abc import Iterator
import dataclasses

import jax.numpy as jnp

from tfm.parts.mask.base import Mask, pairs_by_block

# The number of bits used of an int32, without its sign.
_BITS = 30


@dataclasses.dataclass(frozen=True)
class Blocks(Mask):
  """Block-sparse attention with a given pattern, such as `blocks(rows=(100, 110, 011), block=64)`.

  Block i of queries attends to block j of keys if `rows[i][j]` is '1'. A block that attends to
  itself attends to all of its tokens, so combine the mask with `causal` in a decoder. A query costs
  n ceil(n / 30) selections for n rows; there is no gather, so kernels can run them on tiles.

  Attributes:
    rows: a square of '0' and '1', one string per row. Use dozens of rows, not thousands.
    block: the block size, in tokens. Tokens after the last block belong to it.
  """

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
      yield f'block={self.block} is not a block size. Expected at least 1 token.'
    n = len(self.rows)
    if n == 0 or any(len(row) != n or set(row) - {'0', '1'} for row in self.rows):
      yield f'rows={self.rows} is not a square of 0 and 1. Expected for example (10, 11).'
