"""Global ends, a window and random blocks (BigBird, arXiv:2007.14062)."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.mask.base import Mask, pairs_by_block, scrambled


@dataclasses.dataclass(frozen=True)
class BigBird(Mask):
  """By blocks: the first and the last see and are seen by all; the others see 3 around them and
  `random` more.

  2 n + 2 (4 + r) + (n - 4) (5 + r) pairs of blocks for a document of `length` tokens, n blocks. The
  r are drawn without repeats from the blocks not seen anyway, a function of `seed` and the query's
  block.

  A token does not know where its document ends, so `length` says which block is the last: a shorter
  document has none, and of the random blocks those that it has; of a longer one all that follows
  belongs to the last block. It looks ahead: a mask for encoders.

  *Differs*: Hugging Face draws anew for each layer, and not at all outside training.
  """

  block: int = 64
  random: int = 3
  length: int = 4096
  seed: int = 0

  @property
  def blocks(self) -> int:
    """n, of a document of `length` tokens."""
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
    """The random blocks of each row of blocks but the first and the last (Floyd's sample without
    repeats).
    """
    n = self.blocks
    beside_an_end = (row == 1) | (row == n - 2)
    candidates = n - 5 + beside_an_end
    taken: list[jax.Array] = []
    for i in range(self.random):
      top = candidates - self.random + i
      # 15 bits as a share of what there is to choose from: exact in an int32 below 65,536 blocks.
      share = scrambled(row * self.random + i, self.seed) & 0x7FFF
      first = choice = (share * (top + 1)) >> 15
      for other in taken:
        choice = jnp.where(first == other, top, choice)
      taken.append(choice)
      # Candidates are numbered without the first block and without the window's.
      yield choice + 1 + jnp.where(choice + 1 < row - 1, 0, jnp.where(row == 1, 2, 3))

  def reach(self, i_T, n):
    return None

  def pairs(self, n):
    return pairs_by_block(self, n, self.block)

  def check(self) -> Iterator[str]:
    if self.block < 1 or self.random < 0:
      yield f'block={self.block}, random={self.random} is no size. Expected at least 1 and at least 0.'
    elif self.blocks < 5 + self.random:
      yield (
        f'length={self.length} has {self.blocks} blocks of {self.block}, too few for {self.random} '
        f'random ones. Expected '
        f'at least {5 + self.random}, {(5 + self.random) * self.block} tokens.'
      )
    elif self.blocks >= 65_536:
      yield f'length={self.length} has {self.blocks} blocks of {self.block}. Expected fewer than 65,536.'
