"""Norm after each residual sum (the original transformer, BERT)."""

import dataclasses

from tfm.parts.residual_layout.base import ResidualLayout


@dataclasses.dataclass(frozen=True)
class Post(ResidualLayout):
  """norm(x + f(x)) for every branch f; the stack needs no norm at its end."""

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
