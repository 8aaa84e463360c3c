"""No norm at all (ReZero's residual, arXiv:2003.04887)."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Unnormalised(ResidualLayout):
  """x + f(x) for every branch f; the block's `norm` is not used. A residual_scale that starts small
  keeps it from growing.
  """

  def steps(self, branches, norm):
    return [lambda x, f=f: f(x, None, x) for f in branches.values()]
