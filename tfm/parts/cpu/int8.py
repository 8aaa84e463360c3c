"""Products with int8 weights, for XLA's CPU compiler."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp

from tfm.parts.cpu.dense import has_few_rows
from tfm.parts.stored import matmul_transposed

#: The number of outputs per piece of converted weights.
_PIECE = 1024


def product(x_ri: jax.Array, q_oi: jax.Array) -> jax.Array:
  """Return x q^T in the dtype of x, by the faster method for the number of rows and the CPU."""
  by_halves = has_few_rows(x_ri) or _has_int8_tiles()
  return (product_by_halves if by_halves else product_in_pieces)(x_ri, q_oi)


@functools.cache
def _has_int8_tiles() -> bool:
  """Return whether the CPU multiplies int8 matrices in hardware (Intel AMX)."""
  info = Path('/proc/cpuinfo')
  return info.exists() and 'amx_int8' in info.read_text()


def product_by_halves(x_ri: jax.Array, q_oi: jax.Array) -> jax.Array:
  """Return x q^T with x rounded to 15 bits and split into two int8 halves.

  x is approximately (128 high + low) scale; the rounding step is 1 / 16256 of the largest entry of
  a row. XLA's CPU kernels read the left operand in place and copy the right one into another
  layout, so the weight is on the left if x has few rows. They also need two columns at least:
  halves cost nothing for one row.
  """
  x32_ri = x_ri.astype(jnp.float32)
  scale_r1 = jnp.max(jnp.abs(x32_ri), axis=1, keepdims=True) / (127 * 128)
  whole_ri = jnp.round(x32_ri / jnp.where(scale_r1 > 0, scale_r1, 1))
  high_ri = jnp.round(whole_ri / 128)
  halves = jnp.concatenate([high_ri, whole_ri - 128 * high_ri]).astype(jnp.int8)
  if has_few_rows(x_ri):
    # The compiler swaps the operands of a transposed product unless there is a barrier.
    y = jax.lax.optimization_barrier(_int32_product(q_oi, halves)).astype(jnp.float32)
    high_or, low_or = jnp.split(y, 2, axis=1)
    return ((128 * high_or + low_or) * scale_r1.T).T.astype(x_ri.dtype)
  high_ro, low_ro = jnp.split(_int32_product(halves, q_oi).astype(jnp.float32), 2)
  return ((128 * high_ro + low_ro) * scale_r1).astype(x_ri.dtype)


def _int32_product(a_mk: jax.Array, b_nk: jax.Array) -> jax.Array:
  return jax.lax.dot_general(a_mk, b_nk, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32)


def product_in_pieces(x_ri: jax.Array, q_oi: jax.Array) -> jax.Array:
  """Return x q^T, converting a few rows of the weight at a time.

  Otherwise XLA's CPU compiler would convert all weights of a program before it starts.
  """
  O = len(q_oi)
  pieces = max(2, -(-O // _PIECE))
  n = -(-O // pieces)

  def one(i: jax.Array, y_ro: jax.Array) -> jax.Array:
    start = jnp.minimum(i * n, O - n)  # The last piece may overlap the one before.
    part_rn = matmul_transposed(
      x_ri, jax.lax.dynamic_slice_in_dim(q_oi, start, n).astype(x_ri.dtype)
    )
    return jax.lax.dynamic_update_slice_in_dim(y_ro, part_rn, start, 1)

  return jax.lax.fori_loop(0, pieces, one, jnp.zeros((x_ri.shape[0], O), x_ri.dtype))
