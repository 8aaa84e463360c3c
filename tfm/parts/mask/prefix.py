"""The prefix mask of prefix language models (UniLM, T5)."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Prefix(Mask):
  """Full attention within a prefix of the document, causal attention after it (arXiv:1910.10683).

  A key is allowed if it is in the prefix or not after the query. A document of n tokens with a
  prefix of m has n m + (n - m)(n - m + 1) / 2 pairs.

  Attributes:
    length: the prefix length, in tokens; None: the input `prefix_mask` marks the prefix, and
      without that input there is none.
  """

  length: int | None = None

  def __call__(self, q, k):
    causal = k.positions <= q.positions
    if self.length is not None:
      return causal | (k.positions < self.length)
    return causal if (prefix := k.get('prefix')) is None else causal | prefix

  def reach(self, i_T, n):
    return np.zeros_like(i_T), np.maximum(i_T + 1, self.length or 0)

  @property
  def reads(self):
    return frozenset({'prefix'}) if self.length is None else frozenset()

  def check(self) -> Iterator[str]:
    if self.length is not None and self.length < 0:
      yield (
        f'length={self.length} is negative. '
        'Expected at least 0, or none to use the input prefix_mask.'
      )
