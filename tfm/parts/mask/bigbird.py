"""The block-sparse mask of BigBird: global, window and random blocks."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.mask.base import Mask, pairs_by_block, scrambled


@dataclasses.dataclass(frozen=True)
class BigBird(Mask):
  """Global first and last blocks, a window and random blocks (arXiv:2007.14062).

  The first and the last block attend to all blocks and all attend to them. Every other block
  attends to a window of 3 blocks and to `random` more. A document of n blocks has 2 n + 2 (4 + r) +
  (n - 4) (5 + r) pairs of blocks. The random blocks are drawn without repeats from those outside
  the other patterns, from `seed` and the block of the query. The mask is not causal: use it in
  encoders. A shorter document has no last block and only the random blocks that it contains. In a
  longer one, all tokens from the last block on belong to it.

  Attributes:
    block: the block size, in tokens.
    random: r, the number of random blocks of each block.
    length: the document length, which decides which block is the last.
    seed: selects the random blocks.

  Note:
    Hugging Face draws other random blocks in each layer, and none outside training.
  """

  block: int = 64
  random: int = 3
  length: int = 4096
  seed: int = 0

  @property
  def blocks(self) -> int:
    """n, the number of blocks of a document of `length` tokens."""
    return -(-self.length // self.block)

  def __call__(self, q, k):
    last = self.blocks - 1
    row, column = (jnp.minimum(info.positions // self.block, last) for info in (q, k))
    ok = (
      (row == 0) | (row == last) | (column == 0) | (column == last) | (jnp.abs(row - column) <= 1)
    )
    for drawn in self._drawn(row):
      ok |= column == drawn
    return ok

  def _drawn(self, row: jax.Array) -> Iterator[jax.Array]:
    """Yield the random blocks of every row of blocks except the first and the last.

    Uses Floyd's algorithm for sampling without repeats.
    """
    n = self.blocks
    next_to_end = (row == 1) | (row == n - 2)
    candidates = n - 5 + next_to_end
    taken: list[jax.Array] = []
    for i in range(self.random):
      top = candidates - self.random + i
      # Scale 15 random bits to the number of candidates: exact in int32 below 65,536 blocks.
      share = scrambled(row * self.random + i, self.seed) & 0x7FFF
      first = choice = (share * (top + 1)) >> 15
      for other in taken:
        choice = jnp.where(first == other, top, choice)
      taken.append(choice)
      # Candidate numbers skip the first block and the window.
      window = jnp.where(row == 1, 2, 3)
      yield choice + 1 + jnp.where(choice + 1 < row - 1, 0, window)

  def reach(self, i_T, n):
    return None

  def pairs(self, n):
    return pairs_by_block(self, n, self.block)

  def check(self) -> Iterator[str]:
    if self.block < 1 or self.random < 0:
      yield (
        f'block={self.block}, random={self.random} is out of range. '
        f'Expected block of at least 1 and random of at least 0.'
      )
    elif self.blocks < 5 + self.random:
      yield (
        f'length={self.length} has {self.blocks} blocks of {self.block} tokens, too few for '
        f'random={self.random}. Expected at least {5 + self.random} blocks, which is '
        f'length={(5 + self.random) * self.block}.'
      )
    elif self.blocks >= 65_536:
      yield (
        f'length={self.length} has {self.blocks} blocks of {self.block} tokens. '
        f'Expected fewer than 65,536 blocks.'
      )
