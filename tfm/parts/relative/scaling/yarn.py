"""YaRN: RoPE scaling with a ramp over frequencies."""

import dataclasses
import math

import numpy as np

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class Yarn(Scaling):
  """RoPE with low frequencies interpolated and high ones kept (YaRN, arXiv:2309.00071).

  Pairs with fewer than `slow` turns over `original` positions are divided by `factor`, those with
  more than `fast` turns are kept, with a linear ramp between. Let g(m) = 0.1 m ln(factor) + 1.

  Attributes:
    factor: the ratio of the new context length to that of training.
    original: the context length of training, in tokens.
    fast: the number of turns above which frequencies are kept.
    slow: the number of turns below which frequencies are divided.
    attention: the factor of cos and sin; None: g(mscale) / g(mscale_all) if both are given, else
      g(1).
    mscale: DeepSeek's parameter of the factor of cos and sin.
    mscale_all: DeepSeek's second parameter. If given, `MLA` also multiplies its scores by
      g(mscale_all)^2 (`score_scale`). Other mixers do not, as in Hugging Face.
    truncate: whether the ends of the ramp are rounded to whole pairs, as in the released code.
  """

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
    # If `original` is short, low may exceed high, and the ramp falls, as in the released code.
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
