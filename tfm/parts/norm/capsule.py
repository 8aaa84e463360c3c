"""Squashing function of capsule networks as a norm."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class CapsuleNorm(Norm):
  """Squashing of capsule networks with a learned scale (arXiv:1710.09829).

  Computes |x|^2 / (1 + |x|^2) x / |x| scale. Long vectors get length 1, short ones the square of
  their length.

  Note:
    This is a reconstruction: the text that proposes it as a norm was not available.

  Attributes:
    eps: smallest length |x|.
  """

  eps: float = 1e-6

  def make(self, dims, letters='D'):
    return _CapsuleNorm(self, dims, letters)


class _CapsuleNorm(Module):
  spec: CapsuleNorm
  dims: Dims
  letters: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    precision = self.dims.run.precision
    start = sharded(nn.initializers.ones, self.letters)
    scale = self.param('scale', start, x.shape[-len(self.letters) :], precision.dtype('param'))
    f = x.astype(precision.dtype('reduce'))
    # The square root has no gradient at 0, hence the maximum.
    length = jnp.sqrt(jnp.maximum(jnp.sum(f * f, -1, keepdims=True), self.spec.eps**2))
    # length / (1 + length^2) would overflow to 0 for very long vectors.
    return (f / (length + 1 / length) * trailing(scale.astype(f.dtype), f.ndim)).astype(x.dtype)
