"""Initialization with variance 1 / fan-in."""

import dataclasses

from flax import linen as nn

from tfm.parts.init.base import RESIDUAL, Init


@dataclasses.dataclass(frozen=True)
class FanIn(Init):
  """Normal weights with variance gain^2 / fan-in (PaLM, arXiv:2204.02311).

  Tables of tokens, types and positions are N(0, embed^2).

  Attributes:
    gain: factor of the standard deviation.
    embed: standard deviation of embedding tables.
    depth_scaled: divide weights that write to the residual stream by sqrt(2 L), for L layers.
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
