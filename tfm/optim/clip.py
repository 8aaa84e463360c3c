"""Clip gradients by their global norm."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
  """Return g min(1, limit / |g|), with |g| in float32 over the whole tree (arXiv:1211.5063).

  Note:
    optax divides every element by |g|. XLA does not repeat a division in each kernel that uses the
    result, so it stores the clipped gradients. On a CPU that takes two more passes over memory and
    a copy of the parameters.
  """

  def clip(updates: Any, params: Any) -> Any:
    del params
    norm = optax.tree.norm(jax.tree.map(lambda g: g.astype(jnp.float32), updates))
    factor = jnp.minimum(1.0, limit / norm)
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)

  return optax.stateless(clip)
