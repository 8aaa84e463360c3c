"""The grouped product of experts as a loop over experts, for XLA's CPU compiler.

On a CPU, `jax.lax.ragged_dot` multiplies every row by every matrix: E times the work and memory.
These functions loop over the experts and multiply the rows of each in pieces of a few fixed
lengths.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tfm.parts.stored import sum_dtype

#: Rows per piece, in descending order. Only the last piece of a run may be partial: it includes up
#: to 7 rows of the next run.
_PIECES = (512, 128, 32, 8)


def product(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """Return y_ro, each run of rows of x times the matrix of its expert.

  Args:
    x_ri: the rows, ordered by expert.
    w_Eio: one matrix per expert.
    sizes_E: int32, the number of rows of each expert.

  Returns:
    y_ro, in the dtype of x; rows after the last run are 0.
  """
  return _products(x_ri, w_Eio, sizes_E, 0)


def input_gradient(g_ro: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """Return the gradient of the rows.

  Args:
    g_ro: the gradient of the output.
    w_Eio: one matrix per expert.
    sizes_E: int32, the number of rows of each expert.

  Returns:
    dx_ri.
  """
  return _products(g_ro, w_Eio, sizes_E, 1)


def _products(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array, axis: int) -> jax.Array:
  """Return each run of x times its matrix, contracted over axis `axis` of the matrix."""
  (R, _), (E, *shape), ends_E = x_ri.shape, w_Eio.shape, jnp.cumsum(sizes_E)
  lengths = _lengths(R, E)
  x_ri = jnp.pad(x_ri, ((0, _PIECES[-1]), (0, 0)))

  def run(e: jax.Array, y_ro: jax.Array) -> jax.Array:
    w_io = w_Eio[e]  # A copy, made only for experts that have rows.

    def piece(y_ro: jax.Array, at: jax.Array, n: int, own_n1: jax.Array | None) -> jax.Array:
      part_no = _dot(_rows(x_ri, at, n), w_io, 1, axis).astype(y_ro.dtype)
      # Rows of the next run are zeroed; that run writes them later.
      part_no = part_no if own_n1 is None else jnp.where(own_n1, part_no, 0)
      return jax.lax.dynamic_update_slice_in_dim(y_ro, part_no, at, 0)

    return _through(lengths, ends_E[e] - sizes_E[e], ends_E[e], piece, y_ro)

  one = lambda e, y_ro: jax.lax.cond(sizes_E[e] > 0, run, lambda _, y_ro: y_ro, e, y_ro)
  return jax.lax.fori_loop(0, E, one, jnp.zeros((len(x_ri), shape[1 - axis]), x_ri.dtype))[:R]


def weight_gradient(x_ri: jax.Array, g_ro: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """Return the gradient of the matrices.

  Args:
    x_ri: the rows, ordered by expert.
    g_ro: the gradient of the output.
    sizes_E: int32, the number of rows of each expert.

  Returns:
    dw_Eio, in the accumulation dtype (at least float32).
  """
  lengths, ends_E = _lengths(len(x_ri), len(sizes_E)), jnp.cumsum(sizes_E)
  x_ri, g_ro = (jnp.pad(a, ((0, _PIECES[-1]), (0, 0))) for a in (x_ri, g_ro))

  def piece(w_io: jax.Array, at: jax.Array, n: int, own_n1: jax.Array | None) -> jax.Array:
    x_ni = _rows(x_ri, at, n)
    x_ni = x_ni if own_n1 is None else jnp.where(own_n1, x_ni, 0)
    return w_io + _dot(x_ni, _rows(g_ro, at, n), 0, 0)

  def one(_: None, run: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
    end, size = run
    zeros = jnp.zeros((x_ri.shape[1], g_ro.shape[1]), sum_dtype(x_ri))
    return None, _through(lengths, end - size, end, piece, zeros)

  return jax.lax.scan(one, None, (ends_E, sizes_E))[1]


def _lengths(R: int, E: int) -> tuple[int, ...]:
  """Return the piece lengths for R rows of E experts.

  Each length is a loop to compile, so a long one is used only if many pieces fill it.
  """
  return tuple(n for n in _PIECES[:-1] if 2 * n * min(E, 4) <= R) + _PIECES[-1:]


def _through(
  lengths: tuple[int, ...],
  start: jax.Array,
  end: jax.Array,
  piece: Callable[..., jax.Array],
  y: jax.Array,
) -> jax.Array:
  """Apply `piece(y, at, n, own)` to all rows in [start, end) and return the last y.

  `own` marks the rows before `end`, or is None if all rows of the piece are.
  """

  def pieces(n: int, least: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    def one(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
      at, y = state
      own_n1 = (at + jnp.arange(n) < end)[:, None] if least < n else None
      return at + n, piece(y, at, n, own_n1)

    return jax.lax.while_loop(lambda state: state[0] + least <= end, one, state)

  state = start.astype(jnp.int32), y
  for n in lengths[:-1]:
    state = pieces(n, n, state)
  return pieces(lengths[-1], 1, state)[1]


def _rows(x: jax.Array, at: jax.Array, n: int) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(x, at, n)


def _dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
  return jax.lax.dot_general(
    a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=sum_dtype(a)
  )
