"""Parallel branches."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Parallel(ResidualLayout):
  """Parallel branches, x + f(norm(x)) + g(norm(x)) (GPT-J, PaLM, arXiv:2204.02311).

  Attributes:
    norms_per_branch: use a separate norm for each branch (GPT-NeoX, Falcon 40B).
  """

  norms_per_branch: bool = False

  def steps(self, branches, norm):
    def sum_of_branches(x_BTD):
      if self.norms_per_branch:
        return sum(f(norm(f'{name}_norm')(x_BTD), None, x_BTD) for name, f in branches.items())
      h_BTD = norm('norm')(x_BTD)
      return sum(f(h_BTD, None, x_BTD) for f in branches.values())

    return [sum_of_branches]
