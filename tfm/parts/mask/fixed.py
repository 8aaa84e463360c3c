"""The 'fixed' pattern of the Sparse Transformer: the current block and summary columns."""

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
  """Earlier keys of the current block, and the last keys of every block (arXiv:1904.10509).

  Attributes:
    block: l, the block size, in tokens.
    summary: c, the number of keys at the end of each block that all later queries attend to.
    see: 'union' for both patterns in one layer, or 'local' and 'summary' for alternating layers.
      Two such layers connect any two tokens of different blocks through a summary.
  """

  block: int = 128
  summary: int = 8
  see: Literal['union', 'local', 'summary'] = 'union'

  def __call__(self, q, k):
    causal = k.positions <= q.positions
    local = causal & (q.positions // self.block == k.positions // self.block)
    if self.see == 'local':
      return local
    summary = causal & ~self._plain(k)
    return summary if self.see == 'summary' else local | summary

  def _plain(self, k: TokenInfo) -> jax.Array:
    """Return True for keys that are not summaries."""
    return k.positions % self.block < self.block - self.summary

  def views(self):
    # Summaries of all blocks first: only their own block attends to the other keys.
    if self.see == 'local':
      return super().views()
    return (View(self, keys=lambda k: self._plain(k).astype(jnp.int32)),)

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
      yield f'block={self.block} is not a block size. Expected at least 1 token.'
    elif not 1 <= self.summary <= self.block:
      yield f'summary={self.summary} does not fit block={self.block}. Expected 1 to {self.block}.'
