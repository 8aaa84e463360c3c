"""One learned number a channel, small at first (LayerScale, arXiv:2103.17239)."""

import dataclasses

from flax import linen as nn
import jax

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.residual_scale.base import ResidualScale


@dataclasses.dataclass(frozen=True)
class LayerScale(ResidualScale):
  """scale f(x), the channels' scales starting at `start` (the paper: 0.1 to 18 layers, 1e-5 to 24,
  1e-6 beyond).
  """

  start: float = 0.1

  def make(self, dims):
    return _LayerScale(self, dims)


class _LayerScale(Module):
  spec: LayerScale
  dims: Dims

  @nn.compact
  def __call__(self, y_BTD: jax.Array, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    start, dtype = (
      sharded(nn.initializers.constant(self.spec.start), 'D'),
      self.dims.run.precision.dtype('param'),
    )
    scale_D = self.param('scale', start, (self.dims.d_model,), dtype)
    return y_BTD * trailing(scale_D.astype(y_BTD.dtype), 3)
