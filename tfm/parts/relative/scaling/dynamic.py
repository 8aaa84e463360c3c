"""NTK-aware scaling: a larger base instead of slower positions."""

import dataclasses
import math

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class Dynamic(Scaling):
  """base' = base (factor length / original - (factor - 1))^(d / (d - 2)) when `length` exceeds
  `original`.

  *Differs*: elsewhere `length` is the length of the sequence so far, so that keys cached earlier
  were turned by other angles than keys of one full pass, and decoding disagrees with training. Here
  it is a field: the length to be served."""

  factor: float = 2.0
  original: int = 4096
  length: int = 8192

  def serving(self, length):
    return dataclasses.replace(self, length=length)

  def scale(self, frequency_h, base):
    d = 2 * len(frequency_h)
    if self.length <= self.original or d <= 2:
      return frequency_h, 1.0
    stretch = self.factor * self.length / self.original - (self.factor - 1)
    new_base = base * stretch ** (d / (d - 2))
    # base^(-2h/d) to the power log(new) / log(base) is new^(-2h/d).
    return frequency_h ** (math.log(new_base) / math.log(base)), 1.0
