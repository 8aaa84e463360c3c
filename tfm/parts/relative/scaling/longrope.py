"""LongRoPE (arXiv:2402.13753): a searched factor for every pair."""

from collections.abc import Iterator
import dataclasses
import math

import numpy as np

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class LongRoPE(Scaling):
  """frequency / long (or / short while `length` <= `original`), cos and sin times sqrt(1 + ln(factor) / ln(original)).

  *Differs*: `length`, the length to be served, is a field, for the reason given in `Dynamic`.
  """

  short: tuple[float, ...] = ()
  long: tuple[float, ...] = ()
  original: int = 4096
  length: int = 131_072
  factor: float | None = None
  attention: float | None = None

  def check(self) -> Iterator[str]:
    if len(self.short) != len(self.long):
      yield f'short has {len(self.short)} factors and long {len(self.long)}. Wanted one a rotated pair in both.'

  def scale(self, frequency_h, base):
    pairs = self.long if self.length > self.original else self.short
    pairs_h = np.asarray(pairs or np.ones(len(frequency_h)), np.float64)
    factor = self.factor or self.length / self.original
    attention = self.attention
    if attention is None:
      attention = math.sqrt(1 + math.log(factor) / math.log(self.original)) if factor > 1 else 1.0
    return frequency_h / pairs_h, attention
