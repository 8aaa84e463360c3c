"""NTK-aware RoPE scaling by a larger base."""

import dataclasses
import math

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class Dynamic(Scaling):
  """RoPE with a larger base when `length` exceeds `original` (NTK-aware scaling).

  base' = base (factor length / original - (factor - 1))^(d / (d - 2)).

  Attributes:
    factor: the factor of the formula.
    original: the context length of training, in tokens.
    length: the maximum length to serve, in tokens.

  Note:
    Other implementations use the current sequence length, so cached keys have other angles than
    keys of a full pass, and decoding differs from training. Here `length` is fixed.
  """

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
