"""Sigmoid and the activations gated by it."""

import dataclasses

import jax

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class Sigmoid(Act):
  """Logistic sigmoid, 1 / (1 + exp(-x)), the gate of the original GLU (arXiv:1612.08083)."""

  def value(self, x):
    return jax.nn.sigmoid(x)


@dataclasses.dataclass(frozen=True)
class Swish(Act):
  """Swish, x sigmoid(beta x); with beta = 1 it is SiLU (arXiv:1710.05941).

  Attributes:
    beta: factor inside the sigmoid.
  """

  beta: float = 1.0

  def value(self, x):
    return x * jax.nn.sigmoid(self.beta * x)
