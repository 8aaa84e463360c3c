"""Variance 1 / fan-in, embeddings N(0, 1) (PaLM, arXiv:2204.02311)."""

import dataclasses

from flax import linen as nn

from tfm.parts.init.base import RESIDUAL, Init


@dataclasses.dataclass(frozen=True)
class FanIn(Init):
  """N(0, gain^2 / n_in); token, type and position tables N(0, embed^2).

  `depth_scaled` divides the weights that write to the residual stream by sqrt(2 L).
  """

  gain: float = 1.0
  embed: float = 1.0
  depth_scaled: bool = False

  def weight(self, role, n_in, n_out, dims):
    if role in ('embed', 'types', 'positions'):
      return nn.initializers.normal(self.embed)
    if role == 'relative':
      return nn.initializers.normal(0.02)
    shrink = (2 * dims.depth) ** -0.5 if self.depth_scaled and role in RESIDUAL else 1.0
    return nn.initializers.normal(self.gain * shrink * n_in**-0.5)
