"""Base class of multi-token prediction."""

from collections.abc import Iterator
import dataclasses
from typing import TYPE_CHECKING, Any

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class MTP(Part):
  """Base class: extra layers that predict tokens after the next one.

  At position t, depth k = 1, ..., `depth` predicts token t + k + 1 with a layer like the last layer
  of the model, and with the head of the model. The logits of the model do not depend on these
  layers. They are used in training, if the task needs them, and to draft tokens (`tfm.model.mtp`).

  Attributes:
    depth: number of extra tokens.
  """

  depth: int = 1

  def check(self) -> Iterator[str]:
    if self.depth < 1:
      yield f'depth={self.depth} is too small. Expected at least 1, or mtp=none.'

  @property
  def chained(self) -> bool:
    """Whether a depth uses the output of the previous depth; otherwise all use the trunk."""
    raise AssertionError(f'{type(self).__name__} must define chained')

  def flops(self, d_model: int) -> float:
    """Return the forward FLOPs per token before the layer of a depth."""
    return 0.0

  def make(self, dims: 'Dims') -> Any:
    """Return a module `(h_BTD, e_BTD) -> x_BTD` that makes the input of a layer, if `chained`."""
    raise AssertionError(f'{type(self).__name__} must make a module')
