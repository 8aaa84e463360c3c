"""Learned scale and shift without statistics."""

import dataclasses

from flax import linen as nn
import jax

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Affine(Norm):
  """Learned scale and shift, x * scale + bias (MobileBERT's NoNorm, arXiv:2004.02984)."""

  def make(self, dims, letters='D'):
    return _Affine(self, dims, letters)


class _Affine(Module):
  spec: Affine
  dims: Dims
  letters: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape, dtype = x.shape[-len(self.letters) :], self.dims.run.precision.dtype('param')
    scale = self.param('scale', sharded(nn.initializers.ones, self.letters), shape, dtype)
    bias = self.param('bias', sharded(nn.initializers.zeros, self.letters), shape, dtype)
    return x * trailing(scale.astype(x.dtype), x.ndim) + trailing(bias.astype(x.dtype), x.ndim)
