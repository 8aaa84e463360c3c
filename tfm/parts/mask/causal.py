"""No token sees a later one."""

import dataclasses

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Causal(Mask):
  """Key position <= query position: n (n + 1) / 2 pairs."""

  def __call__(self, q, k):
    return k.pos <= q.pos

  @property
  def causal(self):
    return True
