"""How the output of a branch becomes an update of the residual stream."""

import dataclasses
from typing import Any, ClassVar

import jax

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class ResidualScale(Part):
  """The output of the branch, unchanged.

  `make(dims)` returns a module `(y_BTD, x_BTD, ctx) -> update_BTD`, or the part itself: `y_BTD` is
  the output of the branch, `x_BTD` the residual stream that the update is added to. A gate that
  returns a new stream h is the update h - x."""

  #: Whether it uses `ctx.cond_BD`, a vector per example that the input layer gives.
  conditioned: ClassVar[bool] = False

  def make(self, dims: Any) -> Any:
    return self

  def __call__(self, y_BTD: jax.Array, x_BTD: jax.Array, ctx: Any) -> jax.Array:
    return y_BTD

  def flops(self, d_model: int) -> float:
    """Return the forward FLOPs per token of one branch."""
    return 0.0
