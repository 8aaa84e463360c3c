"""Residual sums without norms."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Unnormalised(ResidualLayout):
  """No norms, x + f(x) for each branch (ReZero, arXiv:2003.04887).

  The field `norm` of the block is not used. Combine it with a residual scale that starts small,
  which keeps the stream from growing.
  """

  def steps(self, branches, norm):
    return [lambda x, f=f: f(x, None, x) for f in branches.values()]
