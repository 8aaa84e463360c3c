"""Rectified linear units."""

import dataclasses

import jax

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class Relu(Act):
  """Rectified linear unit, max(x, 0)."""

  def value(self, x):
    return jax.nn.relu(x)


@dataclasses.dataclass(frozen=True)
class SquaredRelu(Act):
  """Squared rectified linear unit, max(x, 0)^2 (Primer, arXiv:2109.08668)."""

  def value(self, x):
    return jax.nn.relu(x) ** 2
