"""A moving average of the parameters, to evaluate and to sample with."""

from typing import Any

import jax
import jax.numpy as jnp


def init(params: Any) -> Any:
  """A float32 copy of `params`: the average before any update. A copy, so that donating `params`
  leaves it alone.
  """
  return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)


def update(average: Any, params: Any, step: jax.typing.ArrayLike, decay: float) -> Any:
  """average + (1 - d) (params - average), d = min(decay, (1 + step) / (10 + step)).

  `params` are those after update `step` = 0, 1, ... The rising d is what keeps the first parameters
  from weighing on a short run (TensorFlow's `num_updates` rule); as the average starts at a copy of
  them and not at zero, nothing is left to debias. The train step holds the average beside the
  optimizer's state: same tree, same letters as the parameters."""
  step = jnp.asarray(step, jnp.float32)
  fresh = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, p: a + fresh * (p.astype(a.dtype) - a), average, params)
