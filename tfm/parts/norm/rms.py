"""Root mean square normalisation (arXiv:1910.07467)."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.norm.base import Norm, standardized


@dataclasses.dataclass(frozen=True)
class RMSNorm(Norm):
  """x / sqrt(mean x^2 + eps) * scale, or without the factor if not `scale`.

  `one_plus` stores the scale less one (Gemma). `scale_first` multiplies before rounding to the
  compute dtype (Gemma), otherwise after it (Llama); they differ in 16 bits only. Without `scale`
  there is no parameter (nanochat)."""

  eps: float = 1e-6
  one_plus: bool = False
  scale_first: bool = False
  scale: bool = True

  def check(self) -> Iterator[str]:
    if not self.scale and (self.one_plus or self.scale_first):
      yield 'scale=no: there is no scale to store or to multiply first. Expected one_plus=no and scale_first=no.'

  def make(self, dims, letters='D'):
    return _RMSNorm(self, dims, letters)


class _RMSNorm(Module):
  spec: RMSNorm
  dims: Dims
  letters: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    s, precision = self.spec, self.dims.run.precision
    if not s.scale:
      return standardized(x.astype(precision.dtype('reduce')), s.eps, False).astype(x.dtype)
    start = nn.initializers.zeros if s.one_plus else nn.initializers.ones
    scale_D = self.param(
      'scale', sharded(start, self.letters), x.shape[-len(self.letters) :], precision.dtype('param')
    )
    f = x.astype(precision.dtype('reduce'))
    f = standardized(f, s.eps, False)
    scale = trailing(scale_D.astype(f.dtype) + s.one_plus, f.ndim)
    return (
      (f * scale).astype(x.dtype) if s.scale_first else f.astype(x.dtype) * scale.astype(x.dtype)
    )
