"""One's own block, and the last columns of every block (Sparse Transformer, arXiv:1904.10509)."""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from tfm.parts.mask.base import Mask, View
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Fixed(Mask):
  """Earlier keys of one's own block of l, and those that stand at one of the last c = `summary`
  places of any block.

  `see` is both in one layer ('union'), or one of them for blocks that take turns in a pattern:
  'local', then 'summary'; two such layers join any two tokens of different blocks through a
  summary."""

  block: int = 128
  summary: int = 8
  see: Literal['union', 'local', 'summary'] = 'union'

  def __call__(self, q, k):
    seen = k.positions <= q.positions
    local = seen & (q.positions // self.block == k.positions // self.block)
    if self.see == 'local':
      return local
    summary = seen & ~self._plain(k)
    return summary if self.see == 'summary' else local | summary

  def _plain(self, k: TokenInfo) -> jax.Array:
    """Keys that do not stand at the last places of their block."""
    return k.positions % self.block < self.block - self.summary

  def views(self):
    # Summaries of all blocks first: the others are then seen by their own block alone.
    return (
      super().views()
      if self.see == 'local'
      else (View(self, keys=lambda k: self._plain(k).astype(jnp.int32)),)
    )

  def reach(self, i_T, n):
    return (i_T // self.block * self.block, i_T + 1) if self.see == 'local' else None

  def pairs(self, n):
    before, place = np.divmod(np.arange(n), self.block)
    local, own = place + 1, np.maximum(place + 1 - (self.block - self.summary), 0)
    earlier = before * self.summary
    return int({'local': local, 'summary': earlier + own, 'union': earlier + local}[self.see].sum())

  @property
  def causal(self):
    return True

  def check(self) -> Iterator[str]:
    if self.block < 1:
      yield f'block={self.block} is no block. Expected at least 1 token.'
    elif not 1 <= self.summary <= self.block:
      yield f'summary={self.summary} is no number of columns of a block of {self.block}. Expected 1 to {self.block}.'
