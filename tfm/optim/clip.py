"""Clipping by the global norm, without a copy of the gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
  """g min(1, limit / |g|), |g| in float32 over the whole tree (arXiv:1211.5063).

  Differs: optax's divides every element by |g|, and as XLA does not repeat a division in each
  kernel that reads its result, it writes the clipped gradients to memory: on a CPU that is two more
  passes and a copy of the parameters."""

  def clip(updates: Any, params: Any) -> Any:
    del params
    norm = optax.tree.norm(jax.tree.map(lambda g: g.astype(jnp.float32), updates))
    factor = jnp.minimum(1.0, limit / norm)
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)

  return optax.stateless(clip)
