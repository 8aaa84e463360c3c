"""Gradient accumulation over micro-batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors

#: `(params, batch, key) -> ((sum of losses, aux), gradients of the sum)`. `aux` holds sums as well.
GradFn = Callable[[Any, Any, jax.Array | None], tuple[tuple[jax.Array, Any], Any]]


def accumulate(grad_fn: GradFn, n: int) -> GradFn:
  """Run `grad_fn` on `n` micro-batches in sequence, and sum its results.

  All results are sums (of losses, weights, hits and gradients), so the total equals that of the
  whole batch up to rounding. The caller divides once, by the sum of the weights. A mean within the
  loss, such as a balance loss of experts, becomes a sum of `n` means. Sums are kept in float32 or
  wider. Micro-batch `i` uses the key `fold_in(key, i)`.

  Micro-batch `i` takes the examples `i, n + i, 2n + i, ...`. A device with contiguous examples then
  holds its share of each micro-batch, and no example moves between devices. This needs an `n` that
  divides the examples of a device.

  Args:
    grad_fn: Returns the sums and the gradients of a batch.
    n: The number of micro-batches.

  Returns:
    A function like `grad_fn`, of the whole batch.

  Raises:
    UserError: When traced, if `n` does not divide the batch.
  """
  if n == 1:
    return grad_fn

  def summed(params: Any, batch: Any, key: jax.Array | None) -> tuple[tuple[jax.Array, Any], Any]:
    micro = jax.tree.map(lambda x: interleaved(x, n), batch)
    keys = None if key is None else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (micro, keys))
    out = jax.eval_shape(grad_fn, params, *first)
    wide = lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, _at_least(x.dtype)))
    zeros = jax.tree.map(wide, out)

    def body(total: Any, piece: Any) -> tuple[Any, None]:
      result = grad_fn(params, *piece)
      return jax.tree.map(lambda t, x: t + jnp.asarray(x, t.dtype), total, result), None

    total, _ = jax.lax.scan(body, zeros, (micro, keys))
    return jax.tree.map(lambda t, x: t.astype(x.dtype), total, out)

  return summed


def interleaved(x: jax.Array, n: int) -> jax.Array:
  """Reshape `[B, ...]` to `[n, B / n, ...]`. Entry `i` holds every `n`-th example from `i` on."""
  batch = x.shape[0]
  if batch % n:
    raise errors.UserError(
      f'optim.accumulate: {n} micro-batches do not divide a batch of {batch} examples. Expected a '
      f'divisor of {batch}.'
    )
  return jnp.moveaxis(x.reshape(batch // n, n, *x.shape[1:]), 1, 0)


def _at_least(dtype: Any) -> Any:
  return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else dtype
