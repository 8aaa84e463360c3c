"""A capsule's squashing of the whole vector, read as a norm."""

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
  """|x|^2 / (1 + |x|^2) x / |x| scale: long vectors get length 1, short ones their length squared.

  *Differs*: a reconstruction. The text that names it was not to be had; the formula is that of
  capsule networks (arXiv:1710.09829), with a learned scale a channel."""

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
    # The root of a sum that is exactly 0 has no gradient, hence the maximum under the root.
    length = jnp.sqrt(jnp.maximum(jnp.sum(f * f, -1, keepdims=True), self.spec.eps**2))
    # length / (1 + length^2) as written overflows to 0 for the longest.
    return (f / (length + 1 / length) * trailing(scale.astype(f.dtype), f.ndim)).astype(x.dtype)
