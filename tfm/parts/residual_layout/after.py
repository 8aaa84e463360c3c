"""Norm after each branch, before the residual sum (Swin V2, OLMo 2)."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class After(ResidualLayout):
  """x + norm(f(x)) for every branch f (arXiv:2111.09883, 2501.00656)."""

  def steps(self, branches, norm):
    return [lambda x, name=name, f=f: f(x, norm(f'{name}_norm'), x) for name, f in branches.items()]
