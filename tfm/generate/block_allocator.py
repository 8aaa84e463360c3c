"""Who has which block of a paged cache: kept on the host, brought to the cache as a table and a few
copies.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tfm.core import errors


class BlockAllocator:
  """Hands out the blocks of a pool to rows as they grow; forks share blocks until they write
  (arXiv:2309.06180).

  A row is a handle. `grow` says which blocks to copy before the new tokens are written: a block
  that others read too is written to by nobody. The tables and copies go to the device by
  `tfm.parts.cache.paged.set_tables`.

  *Example*:
    >>> blocks = BlockAllocator(8, 4)
    >>> row = blocks.row()
    >>> blocks.grow(row, 6)
    []
    >>> twin = blocks.fork(row)
    >>> blocks.grow(twin, 1)
    [(1, 2)]
    >>> blocks.table([row, twin], 3).tolist()
    [[0, 1, 8], [0, 2, 8]]
  """

  def __init__(self, blocks: int, block: int):
    self.blocks, self.block = blocks, block
    self._free = list(range(blocks))[::-1]
    self._readers = [0] * blocks
    self._rows: dict[int, list[int]] = {}
    self._lengths: dict[int, int] = {}
    self._next = 0

  @property
  def free(self) -> int:
    """How many blocks nobody has."""
    return len(self._free)

  def length(self, row: int) -> int:
    """How many tokens the row has."""
    return self._lengths[row]

  def row(self) -> int:
    """A new row without tokens."""
    return self._new([], 0)

  def fork(self, row: int) -> int:
    """A new row with the tokens of another. Nothing is copied."""
    for block in self._rows[row]:
      self._readers[block] += 1
    return self._new(list(self._rows[row]), self._lengths[row])

  def grow(self, row: int, tokens: int) -> list[tuple[int, int]]:
    """Room for so many more tokens; the copies `(from, to)` to make before they are written, at
    most one.

    Raises: UserError if the pool has too few free blocks; nothing is changed then.
    """
    own, length = self._rows[row], self._lengths[row]
    first = length // self.block
    # The block that is written to first holds tokens already, and somebody else reads it.
    shared = tokens > 0 and first < len(own) and self._readers[own[first]] > 1
    more = max(-(-(length + tokens) // self.block) - len(own), 0)
    if more + shared > self.free:
      raise errors.UserError(
        f'blocks: {tokens} more tokens need {more + shared} more blocks of {self.block}, '
        f'{self.free} of {self.blocks} '
        'are free. Expected rows released first, or a larger pool.'
      )
    copies = []
    if shared:
      copies.append((own[first], self._take()))
      self._drop(own[first])
      own[first] = copies[0][1]
    own.extend(self._take() for _ in range(more))
    self._lengths[row] = length + tokens
    return copies

  def cut(self, row: int, length: int) -> None:
    """The row with its first `length` tokens only; blocks that then hold none of it are given back."""
    assert 0 <= length <= self._lengths[row], (length, self._lengths[row])
    keep, own = -(-length // self.block), self._rows[row]
    for block in own[keep:]:
      self._drop(block)
    del own[keep:]
    self._lengths[row] = length

  def release(self, row: int) -> None:
    """Gives the row's blocks back, as far as nobody else reads them; the handle is no row any more."""
    self.cut(row, 0)
    del self._rows[row], self._lengths[row]

  def table(self, rows: Sequence[int], width: int) -> NDArray[np.int32]:
    """The blocks of each row, int32 `[len(rows), width]`; `blocks`, which is no block, where a row
    has no more.
    """
    table = np.full((len(rows), width), self.blocks, np.int32)
    for i, row in enumerate(rows):
      own = self._rows[row]
      assert len(own) <= width, (len(own), width)
      table[i, : len(own)] = own
    return table

  def _new(self, own: list[int], length: int) -> int:
    row, self._next = self._next, self._next + 1
    self._rows[row], self._lengths[row] = own, length
    return row

  def _take(self) -> int:
    block = self._free.pop()
    self._readers[block] = 1
    return block

  def _drop(self, block: int) -> None:
    self._readers[block] -= 1
    if not self._readers[block]:
      self._free.append(block)
