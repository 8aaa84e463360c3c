"""Base class of residual scales: maps from a branch output to a residual update."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import jax

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Ctx, Dims


@dataclasses.dataclass(frozen=True)
class ResidualScale(Part):
  """No scale: the output of the branch is the update.

  `make(dims)` returns a module `(y_BTD, x_BTD, ctx) -> update_BTD`, or the part itself. `y_BTD` is
  the output of the branch, `x_BTD` the residual stream. A gate that computes a new stream h returns
  the update h - x.
  """

  #: Whether `ctx.cond_BD` is used, a condition per example from the input layer.
  conditioned: ClassVar[bool] = False

  def make(self, dims: 'Dims') -> Any:
    return self

  def __call__(self, y_BTD: jax.Array, x_BTD: jax.Array, ctx: 'Ctx') -> jax.Array:
    """Return the update of the residual stream.

    Args:
      y_BTD: output of the branch.
      x_BTD: the residual stream.
      ctx: the context of the call, with the condition if there is one.

    Returns:
      An array with the shape of `y_BTD`.
    """
    return y_BTD

  def flops(self, d_model: int) -> float:
    """Return the forward FLOPs per token of one branch."""
    return 0.0
