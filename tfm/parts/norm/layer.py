"""Layer normalisation."""

import dataclasses

from flax import linen as nn
import jax

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.norm.base import Norm, standardized


@dataclasses.dataclass(frozen=True)
class LayerNorm(Norm):
  """Layer normalisation, (x - mean) / sqrt(var + eps) scale + bias (arXiv:1607.06450).

  The variance is the biased one. OLMo has neither `scale` nor `bias`.

  Attributes:
    eps: added to the variance.
    bias: add a learned bias.
    scale: multiply by a learned scale.
    one_plus: store scale - 1 (Nemotron's LayerNorm1P).
  """

  eps: float = 1e-5
  bias: bool = True
  scale: bool = True
  one_plus: bool = False

  def make(self, dims, letters='D'):
    return _LayerNorm(self, dims, letters)


class _LayerNorm(Module):
  spec: LayerNorm
  dims: Dims
  letters: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    precision = self.dims.run.precision
    shape, dtype = x.shape[-len(self.letters) :], precision.dtype('param')
    f = x.astype(precision.dtype('reduce'))
    f = standardized(f, self.spec.eps, True)
    if self.spec.scale:
      start = nn.initializers.zeros if self.spec.one_plus else nn.initializers.ones
      scale = self.param('scale', sharded(start, self.letters), shape, dtype)
      f = f * trailing(scale.astype(f.dtype) + self.spec.one_plus, f.ndim)
    if self.spec.bias:
      bias = self.param('bias', sharded(nn.initializers.zeros, self.letters), shape, dtype)
      f = f + trailing(bias, f.ndim)
    return f.astype(x.dtype)
