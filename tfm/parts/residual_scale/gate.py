"""A factor per channel that follows from a condition (adaLN-Zero, arXiv:2212.09748)."""

import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax

from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Ctx, Dims
from tfm.parts.modulation import Modulation
from tfm.parts.residual_scale.base import ResidualScale


@dataclasses.dataclass(frozen=True)
class Gate(ResidualScale):
  """gate f(x), where gate = act(c) W + b of a vector c per example, 0 at first: every block starts
  as the identity.

  The input layer must give a condition (`embed=conditioned`).
  """

  conditioned: ClassVar[bool] = True

  act: Act = Swish()

  def make(self, dims):
    return _Gate(self, dims)


class _Gate(Module):
  spec: Gate
  dims: Dims

  @nn.compact
  def __call__(self, y_BTD: jax.Array, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    assert ctx.cond_BD is not None
    return y_BTD * Modulation(self.spec.act, self.dims, name='gate')(ctx.cond_BD).astype(
      y_BTD.dtype
    )
