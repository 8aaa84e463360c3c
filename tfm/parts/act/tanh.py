"""Hyperbolic tangent."""

import dataclasses

import jax.numpy as jnp

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class Tanh(Act):
  """Hyperbolic tangent, as in BERT's pooler."""

  def value(self, x):
    return jnp.tanh(x)
