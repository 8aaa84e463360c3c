"""Llama 3.1's RoPE scaling."""

import dataclasses

import numpy as np

from tfm.parts.relative.scaling.base import Scaling, wavelengths


@dataclasses.dataclass(frozen=True)
class Llama3(Scaling):
  """RoPE with long wavelengths divided, short ones kept, and a blend between (arXiv:2407.21783).

  Wavelengths below original / high are kept; those above original / low are multiplied by `factor`.
  With `low` = `high` there is no blend (Llama 4 Scout).

  Attributes:
    factor: the divisor of low frequencies.
    low: the number of turns over `original` positions below which frequencies are divided.
    high: the number of turns above which frequencies are kept.
    original: the context length of training, in tokens.
  """

  factor: float = 8.0
  low: float = 1.0
  high: float = 4.0
  original: int = 8192

  def scale(self, frequency_h, base):
    turns_h = self.original / wavelengths(frequency_h) - self.low
    smooth_h = (
      turns_h / (self.high - self.low) if self.high != self.low else np.where(turns_h > 0, 1.0, 0.0)
    )
    smooth_h = np.clip(smooth_h, 0, 1)
    return (1 - smooth_h) * frequency_h / self.factor + smooth_h * frequency_h, 1.0
