"""Feed-forward network with the activation xIELU, which has two learned slopes."""

import dataclasses
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.ffn.base import FFN


@dataclasses.dataclass(frozen=True)
class Xielu(FFN):
  """Two-layer perceptron with xIELU, xielu(x Wu) Wd (Apertus, arXiv:2411.13010).

  xielu(x) = p x^2 + beta x for x > 0, else n (exp(min(x, eps)) - 1 - x) + beta x, with p =
  softplus(alpha_p) and n = beta + softplus(alpha_n). Each layer learns one alpha_p and one alpha_n;
  p and n start at 0.8.

  Attributes:
    d_ff: width of the hidden layer.
    beta: slope at 0.
    eps: largest argument of the exponential function, at most 0.
  """

  d_ff: int = 2048
  beta: float = 0.5
  eps: float = -1e-6

  def make(self, dims):
    return _Xielu(self, dims)

  def flops(self, d_model):
    return 2 * 2 * d_model * self.d_ff


class _Xielu(Module):
  spec: Xielu
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, float]:
    s, D = self.spec, self.dims.d_model
    h_BTF = Dense('DF', (D, s.d_ff), self.dims, name='up')(x_BTD)
    p = jax.nn.softplus(self._alpha('alpha_p', 0.8)).astype(h_BTF.dtype)
    n = (s.beta + jax.nn.softplus(self._alpha('alpha_n', 0.8 - s.beta))).astype(h_BTF.dtype)
    below_BTF = (jnp.expm1(jnp.minimum(h_BTF, s.eps)) - h_BTF) * n
    h_BTF = jnp.where(h_BTF > 0, p * h_BTF * h_BTF, below_BTF) + s.beta * h_BTF
    return Dense('FD', (s.d_ff, D), self.dims, name='down')(h_BTF), 0.0

  def _alpha(self, name: str, start: float) -> jax.Array:
    """Return a learned float32 scalar with softplus equal to `start` at initialization."""
    init = nn.initializers.constant(math.log(math.expm1(start)))
    return self.param(name, sharded(init, ''), (), self.dims.run.precision.dtype('param')).astype(
      jnp.float32
    )
