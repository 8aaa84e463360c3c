"""Gated recurrent unit in place of the residual sum."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.relu import Relu
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.residual_scale.base import ResidualScale


@dataclasses.dataclass(frozen=True)
class Gru(ResidualScale):
  """Gated recurrent unit in place of the residual sum (GTrXL, arXiv:1910.06764).

  The stream becomes (1 - z) x + z h for the branch output f(x), with y = act(f(x)), r = s(W_r y +
  U_r x), z = s(W_z y + U_z x - b) and h = tanh(W_h y + U_h (r x)). s is the logistic function. The
  update of the stream is z (h - x).

  Attributes:
    bias: initial value of b. With a larger value, a block starts closer to the identity.
    act: activation of the branch output (GTrXL: relu; `identity` for none).
  """

  bias: float = 2.0
  act: Act = Relu()

  def make(self, dims):
    return _Gru(self, dims)

  def flops(self, d_model):
    return 12.0 * d_model * d_model


class _Gru(Module):
  spec: Gru
  dims: Dims

  @nn.compact
  def __call__(self, y_BTD: jax.Array, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    d, D = self.dims, self.dims.d_model
    y_BTD = self.spec.act(y_BTD)
    layer = lambda name, x: Dense('DD', (D, D), d, name=name)(x)
    start = sharded(nn.initializers.constant(self.spec.bias), 'D')
    bias_D = self.param('bias', start, (D,), d.run.precision.dtype('param')).astype(y_BTD.dtype)
    r_BTD = jax.nn.sigmoid(layer('reset_y', y_BTD) + layer('reset_x', x_BTD))
    z_BTD = jax.nn.sigmoid(
      layer('update_y', y_BTD) + layer('update_x', x_BTD) - trailing(bias_D, 3)
    )
    h_BTD = jnp.tanh(layer('new_y', y_BTD) + layer('new_x', r_BTD * x_BTD))
    return z_BTD * (h_BTD - x_BTD)
