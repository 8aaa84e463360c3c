"""Norm before each branch (GPT-2, arXiv:2002.04745)."""

import dataclasses

from tfm.parts.wiring.base import Wiring


@dataclasses.dataclass(frozen=True)
class Pre(Wiring):
  """x + f(norm(x)) for every branch f."""

  def steps(self, branches, norm):
    return [lambda x, name=name, f=f: f(norm(f'{name}_norm')(x)) for name, f in branches.items()]
