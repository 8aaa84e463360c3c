"""Glorot's uniform initialization."""

import dataclasses

from flax import linen as nn
import jax

from tfm.parts.init.base import Init


@dataclasses.dataclass(frozen=True)
class Xavier(Init):
  """Uniform weights with Glorot's bounds, as in tensor2tensor and fairseq.

  Weights are U(-a, a) with a = gain sqrt(6 / (fan-in + fan-out)). Tables are N(0, 1 / D).

  Attributes:
    gain: factor of the bound.
  """

  gain: float = 1.0

  def weight(self, role, n_in, n_out, dims):
    if role in ('embed', 'types', 'positions', 'relative', 'head'):
      return nn.initializers.normal(dims.d_model**-0.5)
    bound = self.gain * (6 / (n_in + n_out)) ** 0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)
