"""The block allocator of a paged cache, on the host."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tfm.core import errors


class BlockAllocator:
  """Allocates cache blocks to sequences as they grow, with copy on write (arXiv:2309.06180).

  A sequence is an integer handle. Forks share blocks until they write: `grow` returns the
  blocks to copy before the new tokens are written. `tfm.parts.cache.paged.set_tables` transfers
  tables and copies to the device.

  Args:
    blocks: The number of blocks in the pool.
    block: The number of tokens per block.

  Example:
    >>> allocator = BlockAllocator(8, 4)
    >>> first = allocator.new()
    >>> allocator.grow(first, 6)
    []
    >>> second = allocator.fork(first)
    >>> allocator.grow(second, 1)
    [(1, 2)]
    >>> allocator.table([first, second], 3).tolist()
    [[0, 1, 8], [0, 2, 8]]
  """

  def __init__(self, blocks: int, block: int):
    self.blocks, self.block = blocks, block
    self._free = list(range(blocks))[::-1]
    self._references = [0] * blocks
    self._tables: dict[int, list[int]] = {}
    self._lengths: dict[int, int] = {}
    self._next = 0

  @property
  def n_free(self) -> int:
    """The number of blocks that no sequence uses."""
    return len(self._free)

  def length(self, sequence: int) -> int:
    """Return the number of tokens of a sequence."""
    return self._lengths[sequence]

  def new(self) -> int:
    """Return a new empty sequence."""
    return self._add([], 0)

  def fork(self, sequence: int) -> int:
    """Return a new sequence with the tokens of another, without copies."""
    for block in self._tables[sequence]:
      self._references[block] += 1
    return self._add(list(self._tables[sequence]), self._lengths[sequence])

  def grow(self, sequence: int, tokens: int) -> list[tuple[int, int]]:
    """Allocate blocks for `tokens` more tokens of a sequence.

    Returns the copies `(from, to)` to make before the tokens are written, at most one.

    Raises:
      UserError: if the pool has too few free blocks. Nothing is changed then.
    """
    table, length = self._tables[sequence], self._lengths[sequence]
    first = length // self.block
    # The first block to write to already has tokens, and another sequence reads it.
    shared = tokens > 0 and first < len(table) and self._references[table[first]] > 1
    more = max(-(-(length + tokens) // self.block) - len(table), 0)
    if more + shared > self.n_free:
      raise errors.UserError(
        f'blocks: {tokens} more tokens need {more + shared} more blocks of {self.block} tokens, '
        f'but {self.n_free} of {self.blocks} are free. '
        'Expected finished sequences to be released, or a larger pool.'
      )
    copies = []
    if shared:
      copies.append((table[first], self._take()))
      self._drop(table[first])
      table[first] = copies[0][1]
    table.extend(self._take() for _ in range(more))
    self._lengths[sequence] = length + tokens
    return copies

  def truncate(self, sequence: int, length: int) -> None:
    """Keep the first `length` tokens of a sequence, and free the blocks after them."""
    assert 0 <= length <= self._lengths[sequence], (length, self._lengths[sequence])
    keep, table = -(-length // self.block), self._tables[sequence]
    for block in table[keep:]:
      self._drop(block)
    del table[keep:]
    self._lengths[sequence] = length

  def release(self, sequence: int) -> None:
    """Remove a sequence, and free the blocks that no other sequence uses."""
    self.truncate(sequence, 0)
    del self._tables[sequence], self._lengths[sequence]

  def table(self, sequences: Sequence[int], width: int) -> NDArray[np.int32]:
    """Return the block table of sequences, int32 `[len(sequences), width]`.

    Entries after the last block of a sequence are `blocks`, which is not a valid block.
    """
    tables = np.full((len(sequences), width), self.blocks, np.int32)
    for i, sequence in enumerate(sequences):
      table = self._tables[sequence]
      assert len(table) <= width, (len(table), width)
      tables[i, : len(table)] = table
    return tables

  def _add(self, table: list[int], length: int) -> int:
    sequence, self._next = self._next, self._next + 1
    self._tables[sequence], self._lengths[sequence] = table, length
    return sequence

  def _take(self) -> int:
    block = self._free.pop()
    self._references[block] = 1
    return block

  def _drop(self, block: int) -> None:
    self._references[block] -= 1
    if not self._references[block]:
      self._free.append(block)
