"""All branches side by side (GPT-J, PaLM)."""

import dataclasses

from tfm.parts.wiring.base import Wiring


@dataclasses.dataclass(frozen=True)
class Parallel(Wiring):
  """x + f(norm(x)) + g(norm(x)); with `norms_per_branch` each branch has a norm of its own (GPT-NeoX, Falcon 40B)."""

  norms_per_branch: bool = False

  def __call__(self, x_BTD, branches, norm):
    if not self.norms_per_branch:
      h_BTD = norm('norm')(x_BTD)
      return x_BTD + sum(f(h_BTD) for f in branches.values())
    return x_BTD + sum(f(norm(f'{name}_norm')(x_BTD)) for name, f in branches.items())

  def norms(self, branches):
    return branches if self.norms_per_branch else 1
