"""Activations: elementwise, without parameters."""

import dataclasses

import jax

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Act(Part):
  """x: the identity, which makes a gated feed-forward bilinear."""

  def __call__(self, x: jax.Array) -> jax.Array:
    return x
