"""Products of activations and weights, with gradients in the layout of the weights."""

import functools
import math

import jax

from tfm.core.axes import split_axes
from tfm.parts.stored import matmul_transposed


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: jax.Array, w: jax.Array, n_in: int = 1) -> jax.Array:
  """Multiply activations by a weight, x W.

  The function has its own VJP. XLA's CPU compiler transposes the weight gradient of autodiff, which
  copies every weight in each step. Here the gradient is computed in the layout of W, without a
  copy. On other devices autodiff has the same three products. There is no
  forward-mode derivative.

  Args:
    x: activations. The last `n_in` axes are contracted.
    w: weight. The first `n_in` axes are contracted.
    n_in: number of contracted axes.

  Returns:
    The other axes of `x`, then the other axes of `w`.
  """
  y = _dot(_rows(x, x.ndim - n_in), matrix(w, n_in), 0)
  return y.reshape(*x.shape[: x.ndim - n_in], *w.shape[n_in:])


def _forward(x, w, n_in):
  return contract(x, w, n_in), (x, w)


def contract_gradients(
  x: jax.Array, w: jax.Array, g: jax.Array, n_in: int
) -> tuple[jax.Array, jax.Array]:
  """Return the gradients of `contract`, given its arguments and the gradient of its result.

  Args:
    x: activations.
    w: weight.
    g: gradient of x W.
    n_in: number of contracted axes.

  Returns:
    The gradients of x and of w.
  """
  x2, w2, g2 = _rows(x, x.ndim - n_in), matrix(w, n_in), _rows(g, x.ndim - n_in)
  return _dot(g2, w2, 1).reshape(x.shape), _sum_rows(x2, g2).reshape(w.shape)


def _backward(n_in, residuals, g):
  x, w = residuals
  return contract_gradients(x, w, g, n_in)


contract.defvjp(_forward, _backward)


@jax.custom_vjp
def contract_table(x: jax.Array, w: jax.Array) -> jax.Array:
  """Multiply activations by a transposed table, x W^T, for a table `[V, D]`.

  The gradient of the table is computed in the layout of the table, as in `contract`.
  """
  x2 = _rows(x, x.ndim - 1)
  y = matmul_transposed(x2, w) if x2.ndim == 2 else _dot(x2, w, 1)
  return y.reshape(*x.shape[:-1], w.shape[0])


def _rows_backward(residuals, g):
  x, w = residuals
  x2, g2 = _rows(x, x.ndim - 1), _rows(g, g.ndim - 1)
  return _dot(g2, w, 0).reshape(x.shape), _sum_rows(g2, x2)


contract_table.defvjp(lambda x, w: (contract_table(x, w), (x, w)), _rows_backward)


def matrix(x: jax.Array, rows: int) -> jax.Array:
  """Return x as a matrix: the first `rows` axes are merged, and so are the others."""
  return x.reshape(math.prod(x.shape[:rows]), -1)


def _rows(x: jax.Array, rows: int) -> jax.Array:
  """Return x as a matrix, as `matrix` does.

  If the mesh splits sequences, the first `rows` axes stay separate. A merged axis of batch and time
  has no sharding by both, so XLA would gather it.
  """
  return x.reshape(*x.shape[:rows], -1) if split_axes('T') else matrix(x, rows)


def _dot(x: jax.Array, w: jax.Array, axis: int) -> jax.Array:
  """Return the product over the last axis of x and one axis of w."""
  return jax.lax.dot_general(x, w, (((x.ndim - 1,), (axis,)), ((), ())))


def _sum_rows(x: jax.Array, y: jax.Array) -> jax.Array:
  """Return the sum over rows of the outer products of x and y."""
  rows = tuple(range(x.ndim - 1))
  return jax.lax.dot_general(x, y, ((rows, rows), ((), ())))
