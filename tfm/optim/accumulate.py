"""Gradients of a batch in pieces that fit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors

#: `(params, batch, key) -> ((sum of losses, aux), gradients of that sum)`; `aux` holds sums too.
GradFn = Callable[[Any, Any, jax.Array | None], tuple[tuple[jax.Array, Any], Any]]


def accumulate(grad_fn: GradFn, n: int) -> GradFn:
  """`grad_fn` over a batch in `n` micro-batches, one after the other, everything it returns summed.

  As all are sums (of losses, weights, hits, gradients), the result is that of the whole batch up to
  rounding: the caller divides once, by the sum of the weights. A loss with a mean inside, such as a
  balance loss of experts, becomes a sum of `n` means. Sums are kept in float32 or wider.
  Micro-batch `i` draws with `fold_in(key, i)`.

  Micro-batch `i` takes rows `i, n + i, 2n + i, ...`: a device that holds a contiguous run of the
  rows holds its share of each micro-batch, and no row moves between devices (as long as `n` divides
  what a device holds).

  Raises: UserError, when traced, if `n` does not divide the rows of the batch.
  """
  if n == 1:
    return grad_fn

  def summed(params: Any, batch: Any, key: jax.Array | None) -> tuple[tuple[jax.Array, Any], Any]:
    micro = jax.tree.map(lambda x: interleaved(x, n), batch)
    keys = None if key is None else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (micro, keys))
    out = jax.eval_shape(grad_fn, params, *first)
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, _at_least(x.dtype))), out
    )

    def body(total: Any, piece: Any) -> tuple[Any, None]:
      return jax.tree.map(
        lambda t, x: t + jnp.asarray(x, t.dtype), total, grad_fn(params, *piece)
      ), None

    total, _ = jax.lax.scan(body, zeros, (micro, keys))
    return jax.tree.map(lambda t, x: t.astype(x.dtype), total, out)

  return summed


def interleaved(x: jax.Array, n: int) -> jax.Array:
  """`[n, B / n, ...]` of `[B, ...]`, row `i` of which holds every `n`-th row from `i` on."""
  rows = x.shape[0]
  if rows % n:
    raise errors.UserError(
      f'optim.accumulate: {n} micro-batches do not divide a batch of {rows} rows. Expected a '
      f'divisor of {rows}.'
    )
  return jnp.moveaxis(x.reshape(rows // n, n, *x.shape[1:]), 1, 0)


def _at_least(dtype: Any) -> Any:
  return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else dtype
