"""The grouped matrix product of a mixture of experts."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.cpu import grouped as cpu
from tfm.parts.stored import sum_dtype

#: The rows of x and y are the ragged axis; each run of rows has its own matrix.
_WEIGHTS = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), (0,), ())


@jax.custom_vjp
def grouped_product(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """Multiply each run of rows by the matrix of its expert: y[r] = x[r] W[e].

  The first sizes[0] rows use expert 0, the next sizes[1] rows expert 1, and so on. Rows after the
  last run give 0. The cost is one matrix per row, forward and in both gradients. On a CPU the
  products of `tfm.parts.cpu.grouped` are used.

  Args:
    x_ri: the rows, ordered by expert.
    w_Eio: one matrix per expert.
    sizes_E: int32, the number of rows of each expert.

  Returns:
    y_ro, in the dtype of x.
  """
  return jax.lax.platform_dependent(x_ri, w_Eio, sizes_E, cpu=cpu.product, default=_ragged_product)


def _backward(residuals: Any, g_ro: jax.Array) -> tuple[jax.Array, jax.Array, None]:
  x_ri, w_Eio, sizes_E = residuals
  dx_ri = jax.lax.platform_dependent(
    g_ro, w_Eio, sizes_E, cpu=cpu.input_gradient, default=_ragged_input_gradient
  )
  dw_Eio = jax.lax.platform_dependent(
    x_ri, g_ro, sizes_E, cpu=cpu.weight_gradient, default=_ragged_weight_gradient
  )
  return dx_ri, dw_Eio.astype(w_Eio.dtype), None


grouped_product.defvjp(lambda x, w, sizes: (grouped_product(x, w, sizes), (x, w, sizes)), _backward)


def _ragged_product(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  y_ro = jax.lax.ragged_dot(x_ri, w_Eio, sizes_E, preferred_element_type=x_ri.dtype)
  return jnp.where((jnp.arange(len(y_ro)) < jnp.sum(sizes_E))[:, None], y_ro, 0)


def _ragged_input_gradient(g_ro: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  return _ragged_product(g_ro, jnp.swapaxes(w_Eio, 1, 2), sizes_E)


def _ragged_weight_gradient(x_ri: jax.Array, g_ro: jax.Array, sizes_E: jax.Array) -> jax.Array:
  return jax.lax.ragged_dot_general(
    x_ri, g_ro, sizes_E, _WEIGHTS, preferred_element_type=sum_dtype(x_ri)
  )
