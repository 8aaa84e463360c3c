"""Norm before and after each branch (CogView, Gemma 2)."""

import dataclasses

from tfm.parts.wiring.base import Wiring


@dataclasses.dataclass(frozen=True)
class Sandwich(Wiring):
  """x + norm(f(norm(x))) for every branch f."""

  def __call__(self, x_BTD, branches, norm):
    for name, f in branches.items():
      x_BTD = x_BTD + norm(f'{name}_post_norm')(f(norm(f'{name}_norm')(x_BTD)))
    return x_BTD

  def norms(self, branches):
    return 2 * branches
