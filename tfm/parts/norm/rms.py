"""Root mean square normalisation."""

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
  """Root mean square normalisation, x / sqrt(mean(x^2) + eps) scale (arXiv:1910.07467).

  Attributes:
    eps: added to the mean square.
    one_plus: store scale - 1 (Gemma).
    scale_first: multiply by the scale before rounding to the compute dtype (Gemma), else after it
      (Llama). The two differ in 16 bits only.
    scale: multiply by a learned scale. Without it there are no parameters (nanochat).
  """

  eps: float = 1e-6
  one_plus: bool = False
  scale_first: bool = False
  scale: bool = True

  def check(self) -> Iterator[str]:
    if not self.scale and (self.one_plus or self.scale_first):
      yield (
        'one_plus and scale_first need a scale, and scale=false. '
        'Expected one_plus=false and scale_first=false, or scale=true.'
      )

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
    start = sharded(nn.initializers.zeros if s.one_plus else nn.initializers.ones, self.letters)
    shape = x.shape[-len(self.letters) :]
    scale_D = self.param('scale', start, shape, precision.dtype('param'))
    f = x.astype(precision.dtype('reduce'))
    f = standardized(f, s.eps, False)
    scale = trailing(scale_D.astype(f.dtype) + s.one_plus, f.ndim)
    if s.scale_first:
      return (f * scale).astype(x.dtype)
    return f.astype(x.dtype) * scale.astype(x.dtype)
