"""Near keys, and far ones a stride apart (Sparse Transformer, arXiv:1904.10509)."""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import numpy as np

from tfm.parts.mask.base import Band, Mask, View


@dataclasses.dataclass(frozen=True)
class Strided(Mask):
  """The last l = `stride` keys, oneself included, and every l-th one before: O(n sqrt n) pairs for
  l near sqrt n.

  `see` is both in one layer ('union'), or one of them for blocks that take turns in a pattern:
  'local', then 'stride'; two such layers join any two tokens. 'beyond' are those of 'stride' that
  are not 'local'.

  *Differs*: the paper's text has l + 1 local keys, its code l.
  """

  stride: int = 128
  see: Literal['union', 'local', 'stride', 'beyond'] = 'union'

  def __call__(self, q, k):
    distance, seen = q.positions - k.positions, k.positions <= q.positions
    local = seen & (distance < self.stride)
    if self.see == 'local':
      return local
    # Rather than the distance's remainder: two numbers a token instead of one a pair.
    far = seen & (q.positions % self.stride == k.positions % self.stride)
    if self.see == 'beyond':
      return far & (distance >= self.stride)
    return far if self.see == 'stride' else local | far

  def views(self):
    if self.see == 'local':
      return super().views()
    if self.see == 'union':
      return tuple(
        v for see in ('local', 'beyond') for v in dataclasses.replace(self, see=see).views()
      )
    column = lambda info: info.positions % self.stride
    return (View(self, column, column),)

  def reach(self, i_T, n):
    return (i_T - self.stride + 1, i_T + 1) if self.see == 'local' else None

  def pairs(self, n):
    i = np.arange(n)
    local, far = int(np.minimum(i + 1, self.stride).sum()), int((i // self.stride + 1).sum())
    return {'local': local, 'stride': far, 'beyond': far - n, 'union': local + far - n}[self.see]

  @property
  def band(self):
    return Band(self.stride - 1, 0) if self.see == 'local' else None

  @property
  def causal(self):
    return True

  def check(self) -> Iterator[str]:
    if self.stride < 1:
      yield f'stride={self.stride} is no distance between keys. Expected at least 1.'
