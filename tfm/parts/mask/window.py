"""A band of the nearest keys (Longformer, Mistral)."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.parts.mask.base import Band, Mask, View


@dataclasses.dataclass(frozen=True)
class Window(Mask):
  """The last `size` keys, oneself included: W n - W (W - 1) / 2 pairs for W <= n.

  With `ahead` as many later keys are seen too (an encoder's window of 2 `size` - 1). With a `step`
  they stand that far apart (dilated: `size` keys span (`size` - 1) `step` + 1 positions)."""

  size: int = 128
  ahead: bool = False
  step: int = 1

  def __call__(self, q, k):
    distance = q.positions - k.positions
    near = distance < self.size * self.step
    near &= -distance < self.size * self.step if self.ahead else distance >= 0
    return near if self.step == 1 else near & (q.positions % self.step == k.positions % self.step)

  def views(self):
    column = lambda info: info.positions % self.step
    return super().views() if self.step == 1 else (View(self, column, column),)

  def reach(self, i_T, n):
    return (i_T - self.size + 1, i_T + (self.size if self.ahead else 1)) if self.step == 1 else None

  def pairs(self, n):
    i = np.arange(n)
    behind = np.minimum(i // self.step, self.size - 1)  # and, from the end, as many ahead
    return int(n + behind.sum() * (2 if self.ahead else 1))

  @property
  def band(self):
    return Band(self.size - 1, self.size - 1 if self.ahead else 0) if self.step == 1 else None

  @property
  def causal(self):
    return not self.ahead

  @property
  def lookback(self):
    return (self.size - 1) * self.step

  def check(self) -> Iterator[str]:
    if self.size < 1:
      yield f'size={self.size} lets a token see nobody. Expected at least 1 (oneself).'
    if self.step < 1:
      yield f'step={self.step} is no distance between keys. Expected at least 1.'
