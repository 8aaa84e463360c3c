"""Normalisation to a learned length."""

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
  """Normalisation to one learned length, g x / max(|x|, eps) (arXiv:1910.05895).

  The scalar g starts at sqrt(D).

  Attributes:
    eps: smallest length |x|.
  """

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
    # The square root has no gradient at 0, hence the maximum.
    length = jnp.sqrt(jnp.maximum(jnp.sum(f * f, -1, keepdims=True), self.spec.eps**2))
    return (g * f / length).astype(x.dtype)
