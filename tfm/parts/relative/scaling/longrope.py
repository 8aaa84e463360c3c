"""LongRoPE (arXiv:2402.13753): a searched factor for every pair."""

from collections.abc import Iterator
import dataclasses
import math

import numpy as np

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class LongRoPE(Scaling):
  """frequency / long, or / short for rows of up to `original`; cos and sin times sqrt(1 +
  ln(factor) / ln(original)).

  `length` is the longest row of the published model, `served` the longest that is to be told (None:
  `length`). It chooses the factors; if they are the short ones, rows longer than `original` are
  refused.

  *Differs*: elsewhere the longest row of each call chooses, so that a row's numbers depend on its
  neighbours, and tokens cached before a row outgrew `original` stay turned by other angles than one
  full pass has. Here every row, padded, packed or decoded, is what the one choice makes it: that of
  theirs for rows on the same side of `original`."""

  short: tuple[float, ...] = ()
  long: tuple[float, ...] = ()
  original: int = 4096
  length: int = 131_072
  factor: float | None = None
  attention: float | None = None
  served: int | None = None

  def check(self) -> Iterator[str]:
    if len(self.short) != len(self.long):
      yield f'short has {len(self.short)} factors and long {len(self.long)}. Expected one a rotated pair in both.'

  def fits(self, pairs):
    if self.long and len(self.long) != pairs:
      yield f'long has {len(self.long)} factors. Expected {pairs}, one per rotated pair of a head.'

  @property
  def max_positions(self):
    return self.original if (self.served or self.length) <= self.original else None

  def serving(self, length):
    return dataclasses.replace(self, served=length)

  def scale(self, frequency_h, base):
    pairs = self.short if self.max_positions else self.long
    pairs_h = np.asarray(pairs or np.ones(len(frequency_h)), np.float64)
    factor = self.factor or self.length / self.original
    attention = self.attention
    if attention is None:
      attention = math.sqrt(1 + math.log(factor) / math.log(self.original)) if factor > 1 else 1.0
    return frequency_h / pairs_h, attention
