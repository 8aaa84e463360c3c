"""Layer normalisation (arXiv:1607.06450)."""

import dataclasses

from flax import linen as nn
import jax

from tfm.core.axes import sharded, trailing
from tfm.parts.context import Dims
from tfm.parts.norm.base import Norm, standardized


@dataclasses.dataclass(frozen=True)
class LayerNorm(Norm):
  """(x - mean) / sqrt(var + eps) * scale + bias, with the biased variance."""

  eps: float = 1e-5
  bias: bool = True

  def make(self, dims, letters='D'):
    return _LayerNorm(self, dims, letters)


class _LayerNorm(nn.Module):
  spec: LayerNorm
  dims: Dims
  letters: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    precision = self.dims.run.precision
    shape, dtype = (x.shape[-1],), precision.dtype('param')
    f = x.astype(precision.dtype('reduce'))
    f = standardized(f, self.spec.eps, True)
    f = f * trailing(self.param('scale', sharded(nn.initializers.ones, self.letters), shape, dtype), f.ndim)
    if self.spec.bias:
      f = f + trailing(self.param('bias', sharded(nn.initializers.zeros, self.letters), shape, dtype), f.ndim)
    return f.astype(x.dtype)
