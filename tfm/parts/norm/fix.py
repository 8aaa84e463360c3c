"""Normalisation to unit length without parameters."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.context import Dims
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class FixNorm(Norm):
  """Unit length without parameters, x / max(|x|, eps) (arXiv:1710.01329, 1910.05895).

  As `embed.rows` it normalises every entry of the token table, for embeddings and for logits.

  Attributes:
    eps: smallest length |x|.
  """

  eps: float = 1e-5

  def make(self, dims, letters='D'):
    return _FixNorm(self, dims)


class _FixNorm(nn.Module):
  spec: FixNorm
  dims: Dims

  def __call__(self, x: jax.Array) -> jax.Array:
    f = x.astype(self.dims.run.precision.dtype('reduce'))
    length = jnp.sqrt(jnp.maximum(jnp.sum(f * f, -1, keepdims=True), self.spec.eps**2))
    return (f / length).astype(x.dtype)
