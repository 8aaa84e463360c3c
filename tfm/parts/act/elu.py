"""Exponential linear unit plus one."""

import dataclasses

import jax

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class EluPlusOne(Act):
  """ELU plus one: x + 1 for x > 0, else exp(x) (arXiv:2006.16236).

  It is positive, as a feature map of linear attention must be.
  """

  def value(self, x):
    return jax.nn.elu(x) + 1
