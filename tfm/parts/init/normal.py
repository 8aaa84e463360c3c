"""Initialization with one standard deviation."""

import dataclasses

from flax import linen as nn

from tfm.parts.init.base import RESIDUAL, Init


@dataclasses.dataclass(frozen=True)
class Normal(Init):
  """Normal weights with one standard deviation (GPT-2, BERT).

  Attributes:
    std: standard deviation.
    depth_scaled: divide weights that write to the residual stream by sqrt(2 L), for L layers
      (GPT-2).
    truncated: truncate at two standard deviations (BERT's original code).
  """

  std: float = 0.02
  depth_scaled: bool = True
  truncated: bool = False

  def weight(self, role, n_in, n_out, dims):
    std = self.std
    if self.depth_scaled and role in RESIDUAL:
      std *= (2 * dims.depth) ** -0.5
    if self.truncated:
      # As in BERT's code, the truncated distribution has a standard deviation of 0.88 std.
      return nn.initializers.truncated_normal(std)
    return nn.initializers.normal(std)
