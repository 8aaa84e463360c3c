"""The lambda-shaped mask of LM-Infinite: the first keys and a window."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Lambda(Mask):
  """The first `sinks` keys and the last `size` keys (LM-Infinite, arXiv:2308.16137).

  Documents of up to `sinks` + `size` tokens have the causal mask. The distance cap of the paper
  belongs to the relative position, such as `rope.far`.

  Attributes:
    sinks: the number of first keys that every later query attends to.
    size: the window size, which includes the query itself.
  """

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
      yield f'sinks={self.sinks} is negative. Expected at least 0.'
    if self.size < 1:
      yield f'size={self.size} leaves no key in the window. Expected at least 1 (the query itself).'
