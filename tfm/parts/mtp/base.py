"""Multi-token prediction: layers beside the model's own that predict the tokens after the next one."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class MTP(Part):
  """At t, depth k = 1..`depth` predicts x_{t+k+1}, by a layer like the model's last and by the
  model's own head.

  The model says what it would without them: they are read in training, where the task asks, and for
  drafts (`tfm.model.mtp`)."""

  depth: int = 1

  def check(self) -> Iterator[str]:
    if self.depth < 1:
      yield f'depth={self.depth} predicts no later token. Expected at least 1, or mtp=none.'

  @property
  def chained(self) -> bool:
    """Whether a depth reads the one before it and the token between; otherwise all read the trunk."""
    raise AssertionError(f'{type(self).__name__} must say what its depths read')

  def flops(self, d_model: int) -> float:
    """Multiplications and additions a token takes before the layer of a depth."""
    return 0.0

  def make(self, dims: Any) -> Any:
    """What enters the layer of a depth, a fresh module `(h_BTD, e_BTD) -> x_BTD`, where they are
    chained.
    """
    raise AssertionError(f'{type(self).__name__} has nothing to make')
