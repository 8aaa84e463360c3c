"""One number for every branch, given and not learnt (Granite's residual multiplier)."""

import dataclasses

from tfm.parts.gain.base import Gain


@dataclasses.dataclass(frozen=True)
class Fixed(Gain):
  """factor f(x)."""

  factor: float = 0.25

  def __call__(self, y_BTD, x_BTD, ctx):
    return y_BTD * self.factor
