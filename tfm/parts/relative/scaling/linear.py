"""RoPE scaling by position interpolation."""

import dataclasses

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class Linear(Scaling):
  """RoPE frequencies divided by `factor` (position interpolation, arXiv:2306.15595).

  Attributes:
    factor: the ratio of the new context length to that of training.
  """

  factor: float = 2.0

  def scale(self, frequency_h, base):
    return frequency_h / self.factor, 1.0
