"""The product of a mixture of experts: runs of rows, each with a matrix of its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

#: How many rows at a time, from many to few. Only the last piece of a run is not full: at most 7 rows too many.
_PIECES = (512, 128, 32, 8)

#: Rows of x and of y are the ragged axis, and each run of them has its own matrix.
_WEIGHTS = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), (0,), ())


@jax.custom_vjp
def grouped_product(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """y[r] = x[r] W[e], the first sizes[0] rows with e = 0, the next sizes[1] with e = 1; 0 for rows beyond the last.

  *Cost*: that of the rows of the runs, forward and in both gradients, whatever the number of experts.

  *Why not `jax.lax.ragged_dot` alone*: XLA's CPU compiler multiplies every row by every matrix, E times the work (and
  as much memory). There a loop goes through the runs instead, a piece of rows at a time.
  """
  return jax.lax.platform_dependent(x_ri, w_Eio, sizes_E, cpu=_by_pieces, default=_at_once)


def _backward(residuals: Any, g_ro: jax.Array) -> tuple[jax.Array, jax.Array, None]:
  x_ri, w_Eio, sizes_E = residuals
  dx_ri = jax.lax.platform_dependent(g_ro, w_Eio, sizes_E, cpu=_by_pieces_back, default=_at_once_back)
  dw_Eio = jax.lax.platform_dependent(x_ri, g_ro, sizes_E, cpu=_weights_by_pieces, default=_weights_at_once)
  return dx_ri, dw_Eio.astype(w_Eio.dtype), None


grouped_product.defvjp(lambda x, w, sizes: (grouped_product(x, w, sizes), (x, w, sizes)), _backward)


def _at_once(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  y_ro = jax.lax.ragged_dot(x_ri, w_Eio, sizes_E, preferred_element_type=x_ri.dtype)
  return jnp.where((jnp.arange(len(y_ro)) < jnp.sum(sizes_E))[:, None], y_ro, 0)


def _at_once_back(g_ro: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  return _at_once(g_ro, jnp.swapaxes(w_Eio, 1, 2), sizes_E)


def _weights_at_once(x_ri: jax.Array, g_ro: jax.Array, sizes_E: jax.Array) -> jax.Array:
  return jax.lax.ragged_dot_general(x_ri, g_ro, sizes_E, _WEIGHTS, preferred_element_type=_sums(x_ri))


def _by_pieces(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  return _products(x_ri, w_Eio, sizes_E, 0)


def _by_pieces_back(g_ro: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array) -> jax.Array:
  return _products(g_ro, w_Eio, sizes_E, 1)


def _products(x_ri: jax.Array, w_Eio: jax.Array, sizes_E: jax.Array, axis: int) -> jax.Array:
  """Each run of x against its own matrix, whose axis `axis` is summed over."""
  (R, _), (E, *shape), ends_E = x_ri.shape, w_Eio.shape, jnp.cumsum(sizes_E)
  lengths = _lengths(R, E)
  x_ri = jnp.pad(x_ri, ((0, _PIECES[-1]), (0, 0)))

  def run(e: jax.Array, y_ro: jax.Array) -> jax.Array:
    w_io = w_Eio[e]  # a copy, made for the experts that have rows

    def piece(y_ro: jax.Array, at: jax.Array, n: int, own_n1: jax.Array | None) -> jax.Array:
      part_no = _dot(_rows(x_ri, at, n), w_io, 1, axis).astype(y_ro.dtype)
      # Rows too many are zero until the run that they are of comes.
      part_no = part_no if own_n1 is None else jnp.where(own_n1, part_no, 0)
      return jax.lax.dynamic_update_slice_in_dim(y_ro, part_no, at, 0)

    return _through(lengths, ends_E[e] - sizes_E[e], ends_E[e], piece, y_ro)

  one = lambda e, y_ro: jax.lax.cond(sizes_E[e] > 0, run, lambda _, y_ro: y_ro, e, y_ro)
  return jax.lax.fori_loop(0, E, one, jnp.zeros((len(x_ri), shape[1 - axis]), x_ri.dtype))[:R]


def _weights_by_pieces(x_ri: jax.Array, g_ro: jax.Array, sizes_E: jax.Array) -> jax.Array:
  lengths, ends_E = _lengths(len(x_ri), len(sizes_E)), jnp.cumsum(sizes_E)
  x_ri, g_ro = (jnp.pad(a, ((0, _PIECES[-1]), (0, 0))) for a in (x_ri, g_ro))

  def piece(w_io: jax.Array, at: jax.Array, n: int, own_n1: jax.Array | None) -> jax.Array:
    x_ni = _rows(x_ri, at, n)
    return w_io + _dot(x_ni if own_n1 is None else jnp.where(own_n1, x_ni, 0), _rows(g_ro, at, n), 0, 0)

  def one(_: None, run: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
    end, size = run
    return None, _through(lengths, end - size, end, piece, jnp.zeros((x_ri.shape[1], g_ro.shape[1]), _sums(x_ri)))

  return jax.lax.scan(one, None, (ends_E, sizes_E))[1]


def _lengths(R: int, E: int) -> tuple[int, ...]:
  """How many rows at a time, of R rows of E experts. Each is a loop to compile: long ones pay if many would be full."""
  return tuple(n for n in _PIECES[:-1] if 2 * n * min(E, 4) <= R) + _PIECES[-1:]


def _through(
  lengths: tuple[int, ...], start: jax.Array, end: jax.Array, piece: Callable[..., jax.Array], y: jax.Array
) -> jax.Array:
  """y after `piece(y, at, n, own)` for each piece of the rows from `start` to `end`; `own` marks those before `end`."""

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
  return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=_sums(a))


def _sums(x: jax.Array) -> jnp.dtype:
  """The dtype that products are summed in."""
  return jnp.promote_types(x.dtype, jnp.float32)
