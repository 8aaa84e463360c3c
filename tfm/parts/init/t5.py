"""Initialization of T5, for attention without the factor 1 / sqrt(H)."""

import dataclasses

from flax import linen as nn

from tfm.parts.init.base import Init


@dataclasses.dataclass(frozen=True)
class T5Init(Init):
  """Initialization of T5 (arXiv:1910.10683).

  Weights are N(0, 1 / fan-in) times `factor`. The query projection is N(0, 1 / (D H)), so that
  unscaled attention scores start small.

  Attributes:
    factor: factor of the standard deviation.
  """

  factor: float = 1.0

  def weight(self, role, n_in, n_out, dims):
    if role in ('embed', 'types', 'positions'):
      return nn.initializers.normal(self.factor)
    if role == 'relative':
      return nn.initializers.normal(self.factor * dims.d_model**-0.5)
    if role == 'q':
      return nn.initializers.normal(self.factor * (n_in * dims.head_dim) ** -0.5)
    return nn.initializers.normal(self.factor * n_in**-0.5)
