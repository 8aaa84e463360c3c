"""The products of activations with weights, with gradients in the weights' own layout."""

import functools
import math

import jax

from tfm.parts.stored import matmul_transposed


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: jax.Array, w: jax.Array, n_in: int = 1) -> jax.Array:
  """x W over the last `n_in` axes of x and the first `n_in` of w; its gradients come out in the
  weight's own layout.

  *Why its own VJP*: XLA's CPU compiler transposes the weight gradient that autodiff asks for, a
  copy of every weight each step; contracting the tokens straight into W's layout needs none. As
  matrices (the reshapes are bitcasts) none of the three products copies its operands. Elsewhere
  they are the same three matmuls. It has no forward-mode derivative."""
  y = _dot(matrix(x, x.ndim - n_in), matrix(w, n_in), 1, 0)
  return y.reshape(*x.shape[: x.ndim - n_in], *w.shape[n_in:])


def _forward(x, w, n_in):
  return contract(x, w, n_in), (x, w)


def _backward(n_in, residuals, g):
  x, w = residuals
  x2, w2, g2 = matrix(x, x.ndim - n_in), matrix(w, n_in), matrix(g, x.ndim - n_in)
  return _dot(g2, w2, 1, 1).reshape(x.shape), _dot(x2, g2, 0, 0).reshape(w.shape)


contract.defvjp(_forward, _backward)


@jax.custom_vjp
def against_rows(x: jax.Array, w: jax.Array) -> jax.Array:
  """x W^T: the last axis of x matmul_transposed each row of a table `[V, D]`, with the table's gradient in
  its own layout.
  """
  return matmul_transposed(matrix(x, x.ndim - 1), w).reshape(*x.shape[:-1], w.shape[0])


def _rows_backward(residuals, g):
  x, w = residuals
  x2, g2 = matrix(x, x.ndim - 1), matrix(g, g.ndim - 1)
  return _dot(g2, w, 1, 0).reshape(x.shape), _dot(g2, x2, 0, 0)


against_rows.defvjp(lambda x, w: (against_rows(x, w), (x, w)), _rows_backward)


def matrix(x: jax.Array, rows: int) -> jax.Array:
  """x with its first `rows` axes folded into one and the others into another."""
  return x.reshape(math.prod(x.shape[:rows]), -1)


def _dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
  return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())))
