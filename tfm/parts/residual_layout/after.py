"""Norm after each branch and before the residual sum."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class After(ResidualLayout):
  """Norm after each branch, x + norm(f(x)) (Swin V2, arXiv:2111.09883).

  Also used by OLMo 2 (arXiv:2501.00656).
  """

  def steps(self, branches, norm):
    return [lambda x, name=name, f=f: f(x, norm(f'{name}_norm'), x) for name, f in branches.items()]
