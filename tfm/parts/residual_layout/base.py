"""How norm, branch and residual meet in a block."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part

#: The branches of a block by name, in order. A branch is called with its input, a function applied
#: to its output before residual_scale and dropout (None: nothing), and the residual stream; it
#: returns the update of the stream.
Branches = dict[str, Callable[..., jax.Array]]
Step = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class ResidualLayout(Part):
  """Joins a block's branches to the residual stream: x + step(x), step after step."""

  def __call__(self, x_BTD: jax.Array, branches: Branches, norm: Callable[[str], Any]) -> jax.Array:
    """x_BTD after all branches. `norm(name)` is a fresh norm whose parameters stand under that
    name.
    """
    for step in self.steps(branches, norm):
      x_BTD = x_BTD + step(x_BTD)
    return x_BTD

  def steps(self, branches: Branches, norm: Callable[[str], Any]) -> list[Step]:
    """What is added to the stream, in order, each a function of the stream so far."""
    raise AssertionError(f'{type(self).__name__} must wire a block')

  def own(self, dims: Any) -> dict[str, Any]:
    """Return modules `x_BTD -> y_BTD` of the residual_layout itself, which are branches of these
    names.
    """
    return {}

  @property
  def additive(self) -> bool:
    """Whether the stream changes by nothing but `steps`, so that they can be taken back."""
    return True

  @property
  def final_norm(self) -> bool:
    """Whether the residual stream leaves the last block unnormalised, so that the stack must end
    with a norm.
    """
    return True
