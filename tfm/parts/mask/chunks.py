"""Attention within fixed chunks of positions (Llama 4)."""

from collections.abc import Iterator
import dataclasses

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Chunks(Mask):
  """Attention within chunks of `size` positions (Llama 4).

  Queries attend to the keys of their chunk c, at positions c `size` to (c + 1) `size` - 1: n `size`
  pairs. Combine it with `causal` in a decoder, which halves the pairs.

  Attributes:
    size: the chunk size, in tokens.
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
      yield f'size={self.size} is not a chunk size. Expected at least 1 token.'
