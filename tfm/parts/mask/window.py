"""The sliding-window mask (Longformer, Mistral)."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.parts.mask.base import Band, Mask, View


@dataclasses.dataclass(frozen=True)
class Window(Mask):
  """A sliding window over the last `size` keys (arXiv:2004.05150).

  It has W n - W (W - 1) / 2 pairs for W = `size` <= n.

  Attributes:
    size: the number of keys, which includes the query itself.
    ahead: whether queries also attend to the next `size` - 1 keys (encoders).
    step: the distance between keys; more than 1 is a dilated window of (`size` - 1) `step` + 1
      positions.
  """

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
    if self.step != 1:
      return None
    return i_T - self.size + 1, i_T + (self.size if self.ahead else 1)

  def pairs(self, n):
    i = np.arange(n)
    behind = np.minimum(i // self.step, self.size - 1)  # and, by symmetry, the same number ahead
    return int(n + behind.sum() * (2 if self.ahead else 1))

  @property
  def band(self):
    if self.step != 1:
      return None
    return Band(self.size - 1, self.size - 1 if self.ahead else 0)

  @property
  def causal(self):
    return not self.ahead

  @property
  def lookback(self):
    return (self.size - 1) * self.step

  def check(self) -> Iterator[str]:
    if self.size < 1:
      yield f'size={self.size} leaves no key in the window. Expected at least 1 (the query itself).'
    if self.step < 1:
      yield f'step={self.step} is not a distance. Expected at least 1.'
