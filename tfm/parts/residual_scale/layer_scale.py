"""Learned scale per channel."""

import dataclasses

from flax import linen as nn
import jax

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.residual_scale.base import ResidualScale


@dataclasses.dataclass(frozen=True)
class LayerScale(ResidualScale):
  """Learned scale per channel, small at the start (arXiv:2103.17239).

  Attributes:
    start: initial value. The paper uses 0.1 up to 18 layers, 1e-5 up to 24 and 1e-6 beyond.
  """

  start: float = 0.1

  def make(self, dims):
    return _LayerScale(self, dims)


class _LayerScale(Module):
  spec: LayerScale
  dims: Dims

  @nn.compact
  def __call__(self, y_BTD: jax.Array, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    dtype = self.dims.run.precision.dtype('param')
    start = sharded(nn.initializers.constant(self.spec.start), 'D')
    scale_D = self.param('scale', start, (self.dims.d_model,), dtype)
    return y_BTD * trailing(scale_D.astype(y_BTD.dtype), 3)
