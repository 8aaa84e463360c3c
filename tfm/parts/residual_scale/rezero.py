"""Learned scalar that starts at 0."""

import dataclasses

from flax import linen as nn
import jax

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.residual_scale.base import ResidualScale


@dataclasses.dataclass(frozen=True)
class ReZero(ResidualScale):
  """Learned scalar per branch that starts at 0 (arXiv:2003.04887).

  A stack of any depth starts as the identity. The paper uses no norms, which is
  `residual_layout=unnormalised`.

  Note:
    Every branch has a separate scalar. In the paper the two branches of a layer share one.
  """

  def make(self, dims):
    return _ReZero(dims)


class _ReZero(Module):
  dims: Dims

  @nn.compact
  def __call__(self, y_BTD: jax.Array, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    start = sharded(nn.initializers.zeros, '')
    scale = self.param('scale', start, (), self.dims.run.precision.dtype('param'))
    return y_BTD * scale.astype(y_BTD.dtype)
