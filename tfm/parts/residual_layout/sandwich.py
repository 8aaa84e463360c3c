"""Norm before and after each branch."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Sandwich(ResidualLayout):
  """Norm before and after each branch, x + norm(f(norm(x))) (CogView, arXiv:2105.13290).

  Also used by Gemma 2.
  """

  def steps(self, branches, norm):
    step = lambda x, name, f: f(norm(f'{name}_norm')(x), norm(f'{name}_post_norm'), x)
    return [lambda x, name=name, f=f: step(x, name, f) for name, f in branches.items()]
