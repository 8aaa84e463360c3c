"""The causal mask."""

import dataclasses

import numpy as np

from tfm.parts.mask.base import Band, Mask


@dataclasses.dataclass(frozen=True)
class Causal(Mask):
  """The causal mask: key position <= query position, n (n + 1) / 2 pairs."""

  def __call__(self, q, k):
    return k.positions <= q.positions

  def reach(self, i_T, n):
    return np.zeros_like(i_T), i_T + 1

  @property
  def band(self):
    return Band(None, 0)

  @property
  def causal(self):
    return True
