"""The first keys and the nearest ones, which together look like a capital lambda (LM-Infinite,
arXiv:2308.16137).
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Lambda(Mask):
  """The first `sinks` keys, and the last `size`, oneself included: at most `sinks` + `size` a
  query.

  For documents of up to `sinks` + `size` tokens it is causal. The paper's cap on distances belongs
  to the relative position."""

  sinks: int = 4
  size: int = 128

  def __call__(self, q, k):
    return (k.positions <= q.positions) & (
      (k.positions < self.sinks) | (q.positions - k.positions < self.size)
    )

  def reach(self, i_T, n):
    return None if n > self.sinks + self.size else (np.zeros_like(i_T), i_T + 1)

  def pairs(self, n):
    return int(np.minimum(np.arange(n) + 1, self.sinks + self.size).sum())

  @property
  def causal(self):
    return True

  def check(self) -> Iterator[str]:
    if self.sinks < 0:
      yield f'sinks={self.sinks} is negative. Expected a number of first keys, or 0 for a window.'
    if self.size < 1:
      yield f'size={self.size} lets a token see no near one. Expected at least 1 (oneself).'
