"""One number for every branch, given and not learnt (Granite's residual multiplier)."""

import dataclasses

from tfm.parts.residual_scale.base import ResidualScale


@dataclasses.dataclass(frozen=True)
class Fixed(ResidualScale):
  """factor f(x)."""

  factor: float = 0.25

  def __call__(self, y_BTD, x_BTD, ctx):
    return y_BTD * self.factor
