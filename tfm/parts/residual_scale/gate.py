"""Residual gate computed from a condition."""

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
  """Gate per channel computed from a condition (adaLN-Zero, arXiv:2212.09748).

  Computes gate f(x) with gate = act(c) W + b for the condition c of each example. The gate starts
  at 0, so every block starts as the identity. The input layer must return a condition
  (`embed=conditioned`).

  Attributes:
    act: activation of the condition.
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
    gate_B1D = Modulation(self.spec.act, self.dims, name='gate')(ctx.cond_BD)
    return y_BTD * gate_B1D.astype(y_BTD.dtype)
