"""Position interpolation (arXiv:2306.15595)."""

import dataclasses

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class Linear(Scaling):
  """frequency / factor."""

  factor: float = 2.0

  def scale(self, frequency_h, base):
    return frequency_h / self.factor, 1.0
