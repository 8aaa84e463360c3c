"""Norm before each branch (GPT-2, arXiv:2002.04745)."""

import dataclasses

from tfm.parts.wiring.base import Wiring


@dataclasses.dataclass(frozen=True)
class Pre(Wiring):
  """x + f(norm(x)) for every branch f."""

  def __call__(self, x_BTD, branches, norm):
    for name, f in branches.items():
      x_BTD = x_BTD + f(norm(f'{name}_norm')(x_BTD))
    return x_BTD
