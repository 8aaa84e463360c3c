"""A band of the nearest keys (Longformer, Mistral)."""

from collections.abc import Iterator
import dataclasses

from tfm.parts.mask.base import Mask


@dataclasses.dataclass(frozen=True)
class Window(Mask):
  """The last `size` keys, oneself included: W n - W (W - 1) / 2 pairs for W <= n.

  With `ahead` as many later keys are seen too (an encoder's window of 2 `size` - 1).
  """

  size: int = 128
  ahead: bool = False

  def __call__(self, q, k):
    near = q.pos - k.pos < self.size
    return near & (k.pos - q.pos < self.size) if self.ahead else near & (k.pos <= q.pos)

  def reach(self, i_T, n):
    return i_T - self.size + 1, i_T + (self.size if self.ahead else 1)

  @property
  def causal(self):
    return not self.ahead

  def check(self) -> Iterator[str]:
    if self.size < 1:
      yield f'size={self.size} lets a token see nobody. Wanted at least 1 (oneself).'
