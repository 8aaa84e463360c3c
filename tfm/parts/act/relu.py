"""max(x, 0), and its square (Primer, arXiv:2109.08668)."""

import dataclasses

import jax

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class Relu(Act):
  """max(x, 0)."""

  def value(self, x):
    return jax.nn.relu(x)


@dataclasses.dataclass(frozen=True)
class SquaredRelu(Act):
  """max(x, 0)^2."""

  def value(self, x):
    return jax.nn.relu(x) ** 2
