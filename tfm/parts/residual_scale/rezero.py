"""One learned number, 0 at first (ReZero, arXiv:2003.04887)."""

import dataclasses

from flax import linen as nn
import jax

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.residual_scale.base import ResidualScale


@dataclasses.dataclass(frozen=True)
class ReZero(ResidualScale):
  """a f(x), a = 0 at first, so that a stack of any depth starts as the identity. The paper goes
  without norms: residual_layout `bare`.

  *Differs*: every branch has its own a; the paper's two branches of a layer share one.
  """

  def make(self, dims):
    return _ReZero(dims)


class _ReZero(Module):
  dims: Dims

  @nn.compact
  def __call__(self, y_BTD: jax.Array, x_BTD: jax.Array, ctx: Ctx) -> jax.Array:
    start = sharded(nn.initializers.zeros, '')
    return y_BTD * self.param('scale', start, (), self.dims.run.precision.dtype('param')).astype(
      y_BTD.dtype
    )
