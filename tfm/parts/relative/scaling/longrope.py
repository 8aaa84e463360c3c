"""LongRoPE: a searched divisor for every frequency."""

from collections.abc import Iterator
import dataclasses
import math

import numpy as np

from tfm.parts.relative.scaling.base import Scaling


@dataclasses.dataclass(frozen=True)
class LongRoPE(Scaling):
  """RoPE frequencies divided by searched factors, one per rotated pair (arXiv:2402.13753).

  The `short` factors serve sequences of up to `original` tokens, the `long` ones longer sequences.
  cos and sin are multiplied by sqrt(1 + ln(factor) / ln(original)).

  Attributes:
    short: the divisors for sequences of up to `original` tokens.
    long: the divisors for longer sequences.
    original: the context length of training, in tokens.
    length: the maximum length of the published model, in tokens.
    factor: the factor of the formula; None: length / original.
    attention: the factor of cos and sin; None: by the formula.
    served: the maximum length to serve; None: `length`. It selects the divisors. With the short
      ones, sequences longer than `original` raise an error.

  Note:
    Other implementations choose by the longest sequence of each call. There, results depend on the
    rest of the batch, and cached keys keep their angles when a sequence outgrows `original`. Here
    one choice holds for all sequences.
  """

  short: tuple[float, ...] = ()
  long: tuple[float, ...] = ()
  original: int = 4096
  length: int = 131_072
  factor: float | None = None
  attention: float | None = None
  served: int | None = None

  def check(self) -> Iterator[str]:
    if len(self.short) != len(self.long):
      yield (
        f'short has {len(self.short)} factors and long has {len(self.long)}. '
        f'Expected one per rotated pair in both.'
      )

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
