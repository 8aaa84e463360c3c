"""The grouped product of experts as a loop over runs of rows, for XLA's CPU compiler.

`jax.lax.ragged_dot` on a CPU multiplies every row by every matrix: E times the work and the memory.
These functions loop over the experts instead and multiply the rows of each in pieces of a few fixed
lengths."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tfm.parts.stored import sum_dtype

#: Rows per piece, from long to short. Only the last piece of a run is not full: it has up to 7 rows
#: of the next run.
_PIECES = (512, 128, 32, 8)


def product(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """Return y_ro, each run of rows of x times its expert's matrix."""
  return _products(x_ri, w_Eio, sizes_E, 0)


def input_gradient(g_ro: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """Return dx_ri, the gradient of the rows."""
  return _products(g_ro, w_Eio, sizes_E, 1)


def _products(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array, axis: int) -> jax.Array:
  """Return each run of x times its own matrix, contracting the matrix's axis `axis`."""
  (R, _), (E, *shape), ends_E = x_ri.shape, w_Eio.shape, jnp.cumsum(sizes_E)
  lengths = _lengths(R, E)
  x_ri = jnp.pad(x_ri, ((0, _PIECES[-1]), (0, 0)))

  def run(e: jax.Array, y_ro: jax.Array) -> jax.Array:
    w_io = w_Eio[e]  # A copy, which only experts with rows need.

    def piece(y_ro: jax.Array, at: jax.Array, n: int, own_n1: jax.Array | None) -> jax.Array:
      part_no = _dot(_rows(x_ri, at, n), w_io, 1, axis).astype(y_ro.dtype)
      # Rows of the next run are zeroed; that run writes them later.
      part_no = part_no if own_n1 is None else jnp.where(own_n1, part_no, 0)
      return jax.lax.dynamic_update_slice_in_dim(y_ro, part_no, at, 0)

    return _through(lengths, ends_E[e] - sizes_E[e], ends_E[e], piece, y_ro)

  one = lambda e, y_ro: jax.lax.cond(sizes_E[e] > 0, run, lambda _, y_ro: y_ro, e, y_ro)
  return jax.lax.fori_loop(0, E, one, jnp.zeros((len(x_ri), shape[1 - axis]), x_ri.dtype))[:R]


def weight_gradient(x_ri: jax.Array, g_ro: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """Return dw_Eio, the gradient of the matrices, in the dtype that products are summed in."""
  lengths, ends_E = _lengths(len(x_ri), len(sizes_E)), jnp.cumsum(sizes_E)
  x_ri, g_ro = (jnp.pad(a, ((0, _PIECES[-1]), (0, 0))) for a in (x_ri, g_ro))

  def piece(w_io: jax.Array, at: jax.Array, n: int, own_n1: jax.Array | None) -> jax.Array:
    x_ni = _rows(x_ri, at, n)
    return w_io + _dot(
      x_ni if own_n1 is None else jnp.where(own_n1, x_ni, 0), _rows(g_ro, at, n), 0, 0
    )

  def one(_: None, run: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
    end, size = run
    return None, _through(
      lengths, end - size, end, piece, jnp.zeros((x_ri.shape[1], g_ro.shape[1]), sum_dtype(x_ri))
    )

  return jax.lax.scan(one, None, (ends_E, sizes_E))[1]


def _lengths(R: int, E: int) -> tuple[int, ...]:
  """Return the piece lengths for R rows of E experts. Each is a loop to compile; a long one pays if
  many are full.
  """
  return tuple(n for n in _PIECES[:-1] if 2 * n * min(E, 4) <= R) + _PIECES[-1:]


def _through(
  lengths: tuple[int, ...],
  start: jax.Array,
  end: jax.Array,
  piece: Callable[..., jax.Array],
  y: jax.Array,
) -> jax.Array:
  """Return y after `piece(y, at, n, own)` for each piece of rows in [start, end); `own` marks the
  rows before `end`.
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
