"""Norm after each residual sum."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Post(ResidualLayout):
  """Post-norm, norm(x + f(x)) for each branch (Transformer, arXiv:1706.03762; BERT).

  The stack needs no final norm.
  """

  def __call__(self, x_BTD, branches, norm):
    for name, f in branches.items():
      x_BTD = norm(f'{name}_norm')(x_BTD + f(x_BTD, None, x_BTD))
    return x_BTD

  @property
  def additive(self):
    return False

  @property
  def final_norm(self):
    return False
