"""The logistic function and what it gates."""

import dataclasses

import jax

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class Sigmoid(Act):
  """1 / (1 + exp(-x)); as the gate of a GLU, the original one (arXiv:1612.08083)."""

  def value(self, x):
    return jax.nn.sigmoid(x)


@dataclasses.dataclass(frozen=True)
class Swish(Act):
  """x sigmoid(beta x) (arXiv:1710.05941); beta = 1 is SiLU, the gate of SwiGLU."""

  beta: float = 1.0

  def value(self, x):
    return x * jax.nn.sigmoid(self.beta * x)
