"""All branches side by side (GPT-J, PaLM)."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Parallel(ResidualLayout):
  """x + f(norm(x)) + g(norm(x)); with `norms_per_branch` each branch has a norm of its own
  (GPT-NeoX, Falcon 40B).
  """

  norms_per_branch: bool = False

  def steps(self, branches, norm):
    def together(x_BTD):
      if self.norms_per_branch:
        return sum(f(norm(f'{name}_norm')(x_BTD), None, x_BTD) for name, f in branches.items())
      h_BTD = norm('norm')(x_BTD)
      return sum(f(h_BTD, None, x_BTD) for f in branches.values())

    return [together]
