"""Attention within chunks of positions (Llama 4, Meta 2025)."""

from collections.abc import Iterator
import dataclasses

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Chunks(Mask):
  """Keys of the query's own chunk, positions c `size` to (c + 1) `size` - 1; joined with `causal`
  in a decoder.

  *Cost*: n `size` pairs, half of them where it is causal.
  """

  size: int = 8192

  def __call__(self, q, k):
    return q.positions // self.size == k.positions // self.size

  def reach(self, i_T, n):
    first_T = i_T // self.size * self.size
    return first_T, first_T + self.size

  @property
  def lookback(self):
    return self.size - 1

  def check(self) -> Iterator[str]:
    if self.size < 1:
      yield f'size={self.size} holds no token. Expected at least 1.'
