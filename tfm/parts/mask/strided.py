"""The 'strided' pattern of the Sparse Transformer: a window and every l-th key."""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import numpy as np

from tfm.parts.mask.base import Band, Mask, View


@dataclasses.dataclass(frozen=True)
class Strided(Mask):
  """The last `stride` keys, and every `stride`-th key before them (arXiv:1904.10509).

  There are O(n sqrt n) pairs for a stride near sqrt n.

  Attributes:
    stride: l, the window size and the distance between far keys, in tokens.
    see: 'union' for both patterns in one layer, or 'local' and 'stride' for alternating layers. Two
      such layers connect any two tokens. 'beyond' is 'stride' without 'local'.

  Note:
    The text of the paper has l + 1 local keys, its code l, as here.
  """

  stride: int = 128
  see: Literal['union', 'local', 'stride', 'beyond'] = 'union'

  def __call__(self, q, k):
    distance, causal = q.positions - k.positions, k.positions <= q.positions
    local = causal & (distance < self.stride)
    if self.see == 'local':
      return local
    # Two remainders per token instead of one per pair.
    far = causal & (q.positions % self.stride == k.positions % self.stride)
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
      yield f'stride={self.stride} is not a distance. Expected at least 1.'
