"""Exponential linear unit plus one: a positive feature map (arXiv:2006.16236)."""

import dataclasses

import jax

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class EluPlusOne(Act):
  """x + 1 for x > 0, else exp(x)."""

  def value(self, x):
    return jax.nn.elu(x) + 1
