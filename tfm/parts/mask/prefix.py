"""A prefix in full view of its document, causal after it (UniLM, T5's prefix LM)."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Prefix(Mask):
  """Key in the prefix, or key position <= query position: n m + (n - m)(n - m + 1) / 2 pairs, rows
  of the prefix m.

  The prefix is the first `length` positions of a document, or, without a length, what the input
  `prefix_mask` says (nothing, if it is not given)."""

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
      yield f'length={self.length} is negative. Expected a number of positions, or none to read prefix_mask.'
