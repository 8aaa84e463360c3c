"""Products of few rows with float weights, for XLA's CPU compiler."""

import jax


def has_few_rows(x_ri: jax.Array) -> bool:
  """Return whether x has at most 32 rows, for which a weight on the left is faster.

  An exported program may have a symbolic number of rows, which counts as many.
  """
  return isinstance(x_ri.shape[0], int) and x_ri.shape[0] <= 32


def product(x_ri: jax.Array, w_oi: jax.Array) -> jax.Array:
  """Return x w^T with the weight as the left operand.

  XLA's CPU kernels copy the whole right operand into another layout at each call, and read the
  left operand in place. The compiler swaps the operands of a transposed product unless there is a
  barrier.
  """
  y_or = jax.lax.dot_general(w_oi, x_ri, (((1,), (1,)), ((), ())))
  return jax.lax.optimization_barrier(y_or).T
