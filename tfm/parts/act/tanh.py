"""The hyperbolic tangent."""

import dataclasses

import jax.numpy as jnp

from tfm.parts.act.base import Act


@dataclasses.dataclass(frozen=True)
class Tanh(Act):
  """tanh(x), of BERT's pooler."""

  def value(self, x):
    return jnp.tanh(x)
