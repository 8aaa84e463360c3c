"""Fixed residual scale."""

import dataclasses

from tfm.parts.residual_scale.base import ResidualScale


@dataclasses.dataclass(frozen=True)
class Fixed(ResidualScale):
  """Fixed factor of every branch (Granite's residual multiplier).

  Attributes:
    factor: the factor.
  """

  factor: float = 0.25

  def __call__(self, y_BTD, x_BTD, ctx):
    return y_BTD * self.factor
