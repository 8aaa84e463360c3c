"""A moving average of the parameters, for evaluation and sampling."""

from typing import Any

import jax
import jax.numpy as jnp


def init(params: Any) -> Any:
  """Return a float32 copy of `params`, which remains valid if `params` is donated."""
  return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)


def update(average: Any, params: Any, step: jax.typing.ArrayLike, decay: float) -> Any:
  """Return average + (1 - d) (params - average), with d = min(decay, (1 + step) / (10 + step)).

  The rising d reduces the weight of the first parameters in short runs, as `num_updates` in
  TensorFlow. The average starts as a copy of the parameters, so it needs no debiasing. The train
  state holds it as a tree like the parameters.

  Args:
    average: The average before the update.
    params: The parameters after update `step`.
    step: The number of the update, from 0.
    decay: The largest d.

  Returns:
    The new average.
  """
  step = jnp.asarray(step, jnp.float32)
  fresh = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, p: a + fresh * (p.astype(a.dtype) - a), average, params)
