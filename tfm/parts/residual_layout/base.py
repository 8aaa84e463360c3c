"""Base class of residual layouts: the order of norms, branches and residual sums."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part

#: The branches of a block by name, in order. The arguments of a branch are its input, a function
#: applied to its output before residual scale and dropout (or None), and the residual stream. It
#: returns the update of the stream.
Branches = dict[str, Callable[..., jax.Array]]
Step = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class ResidualLayout(Part):
  """Base class: adds the branches of a block to the residual stream, one step after the other."""

  def __call__(self, x_BTD: jax.Array, branches: Branches, norm: Callable[[str], Any]) -> jax.Array:
    """Return the output of the block.

    Args:
      x_BTD: the residual stream.
      branches: branches of the block, by name.
      norm: returns a fresh norm with its parameters under the given name.

    Returns:
      The residual stream after all branches.
    """
    for step in self.steps(branches, norm):
      x_BTD = x_BTD + step(x_BTD)
    return x_BTD

  def steps(self, branches: Branches, norm: Callable[[str], Any]) -> list[Step]:
    """Return the updates of the stream in order, each a function of the current stream."""
    raise AssertionError(f'{type(self).__name__} must return steps')

  def own(self, dims: Any) -> dict[str, Any]:
    """Return additional branches by name: modules `x_BTD -> y_BTD` of this layout."""
    return {}

  def flops(self, d_model: int) -> float:
    """Return the forward FLOPs per token of the additional branches."""
    return 0.0

  @property
  def additive(self) -> bool:
    """Whether the block only adds `steps` to the stream, so that it can be inverted."""
    return True

  @property
  def final_norm(self) -> bool:
    """Whether the stack must end with a norm, as the last block does not normalise the stream."""
    return True
