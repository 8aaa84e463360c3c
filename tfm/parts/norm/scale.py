"""One learned length for the whole vector (ScaleNorm, arXiv:1910.05895)."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class ScaleNorm(Norm):
  """g x / max(|x|, eps), with one scalar g that starts at sqrt(D)."""

  eps: float = 1e-5

  def make(self, dims, letters='D'):
    return _ScaleNorm(self, dims)


class _ScaleNorm(Module):
  spec: ScaleNorm
  dims: Dims

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    precision = self.dims.run.precision
    start = sharded(nn.initializers.constant(x.shape[-1] ** 0.5), '')
    g = self.param('scale', start, (), precision.dtype('param'))
    f = x.astype(precision.dtype('reduce'))
    # The root of a sum that is exactly 0 has no gradient, hence the maximum under the root.
    length = jnp.sqrt(jnp.maximum(jnp.sum(f * f, -1, keepdims=True), self.spec.eps**2))
    return (g * f / length).astype(x.dtype)
