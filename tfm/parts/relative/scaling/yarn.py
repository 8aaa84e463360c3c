"""YaRN (arXiv:2309.00071): slow turns interpolated, fast ones kept, a ramp between."""

import dataclasses
import math

import numpy as np

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class Yarn(Scaling):
  """frequency / factor for pairs that turn less than `slow` times over `original` positions,
  frequency above `fast`.

  cos and sin are multiplied by `attention`, by default .1 ln factor + 1. With `mscale` and
  `mscale_all` (DeepSeek) it is g(mscale) / g(mscale_all), g(m) = .1 m ln factor + 1, and `MLA`
  multiplies its scores, rotated or not, by g(mscale_all)^2 (`score_scale`). Scores of any other
  attention are not multiplied, as in Hugging Face's. `truncate` rounds the ramp's ends to whole
  pairs, as released."""

  factor: float = 4.0
  original: int = 4096
  fast: float = 32.0
  slow: float = 1.0
  attention: float | None = None
  mscale: float | None = None
  mscale_all: float | None = None
  truncate: bool = True

  def scale(self, frequency_h, base):
    h, d = len(frequency_h), 2 * len(frequency_h)

    def pair_turning(times: float) -> float:
      return d * math.log(self.original / (times * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair_turning(self.fast), pair_turning(self.slow)
    if self.truncate:
      low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    # Of a short `original` the ends may be in the other order, and the ramp falls, as released.
    ramp_h = np.clip((np.arange(h) - low) / ((high - low) or 0.001), 0, 1)
    return frequency_h * (1 - ramp_h) + frequency_h / self.factor * ramp_h, self._attention()

  @property
  def score_scale(self):
    return self._g(self.mscale_all) ** 2 if self.mscale_all else 1.0

  def _attention(self) -> float:
    if self.attention is not None:
      return self.attention
    if self.mscale and self.mscale_all:
      return self._g(self.mscale) / self._g(self.mscale_all)
    return self._g(1.0)

  def _g(self, m: float) -> float:
    return 0.1 * m * math.log(self.factor) + 1 if self.factor > 1 else 1.0
