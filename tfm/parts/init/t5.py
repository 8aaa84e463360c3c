"""T5's start, made for attention without 1/sqrt(H) (arXiv:1910.10683)."""

import dataclasses

from flax import linen as nn

from tfm.parts.init.base import Init


@dataclasses.dataclass(frozen=True)
class T5Init(Init):
  """N(0, 1 / n_in) times `factor`, except q: N(0, 1 / (D H)), so that scores start small without
  being divided.
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
