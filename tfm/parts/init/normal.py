"""One standard deviation for every weight (GPT-2, BERT)."""

import dataclasses

from flax import linen as nn

from tfm.parts.init.base import RESIDUAL, Init


@dataclasses.dataclass(frozen=True)
class Normal(Init):
  """N(0, std^2); with `depth_scaled`, weights that write to the residual stream are divided by
  sqrt(2 L) (GPT-2).

  `truncated` cuts at two standard deviations (BERT's original code).
  """

  std: float = 0.02
  depth_scaled: bool = True
  truncated: bool = False

  def weight(self, role, n_in, n_out, dims):
    std = (
      self.std * (2 * dims.depth) ** -0.5 if self.depth_scaled and role in RESIDUAL else self.std
    )
    # What the cut leaves has a standard deviation of .88 std, in BERT's code as here.
    return nn.initializers.truncated_normal(std) if self.truncated else nn.initializers.normal(std)
