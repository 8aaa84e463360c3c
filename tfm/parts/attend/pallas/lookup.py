"""Lookups inside a kernel, 128 entries at a time, and their gradients."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.attend.pallas.tiled import broadcast

LANES = 128
#: The minimum number of entries for which diagonals are summed first.
_MANY = 16


def lookup_table(table: Any, index: jax.Array) -> jax.Array:
  """Look up entries of a table `[1, chunks, 128]` of one head.

  `index` is `[rows, columns]`; either may be 1.
  """
  rows, columns = index.shape
  # The TPU gathers along lanes only, and from whole registers.
  height = 8 if rows == 1 else rows
  width = LANES if columns == 1 else columns
  index = broadcast(index, (height, width))
  chunk = lambda c, like: jnp.broadcast_to(
    table[0, _aligned_slice(c, 1), :], (like.shape[0], LANES)
  )
  return _gather_chunks(index, table.shape[1], chunk)[:rows, :columns]


def lookup_rows(numbers: Any, index: jax.Array) -> jax.Array:
  """Look up entries of each row of `numbers`, `[1, 1, rows, 128 chunks]`, at `[rows, columns]`."""
  chunk = lambda c, _: numbers[0, 0, :, _aligned_slice(c * LANES, LANES)].astype(jnp.float32)
  return _gather_chunks(index, numbers.shape[3] // LANES, chunk)


def add_table_gradient(sums: Any, index: jax.Array, d: jax.Array) -> None:
  """Add the gradient of a table lookup to `sums`.

  Args:
    sums: `[1, entries, 128]`. Row u collects d where the index is u; its columns must be summed
      later.
    index: the entry of each element of the tile.
    d: the gradient of the tile.
  """
  if d.shape[1] == 1:
    lane = jax.lax.broadcasted_iota(jnp.int32, (d.shape[0], LANES), 1)
    index, d = broadcast(index, lane.shape), jnp.where(lane == 0, broadcast(d, lane.shape), 0.0)

  def entries(index: jax.Array, d: jax.Array) -> None:
    for part, first, last in _column_slices(index):
      _add_by_entry(sums, 0, part, d[:, first:last])

  if min(index.shape) == 1:
    entries(index, d)
    return
  low, high = _min_max(index)
  diagonal = _is_toeplitz(index) & (high - low >= _MANY)
  _run_if(diagonal, lambda: entries(*_sum_diagonals(index, d)))
  _run_if(~diagonal, lambda: entries(index, d))


def add_row_gradients(sums: Any, index: jax.Array, d: jax.Array) -> None:
  """Add the gradient of a lookup in vectors of the columns' tokens to `sums`.

  Args:
    sums: `[columns / 128, entries, 128]`. Row u of a column collects the column's d where the index
      is u.
    index: the entry of each element of the tile.
    d: the gradient of the tile.
  """
  for i, (part, first, last) in enumerate(_column_slices(index)):
    _add_by_entry(sums, i, part, d[:, first:last])


def dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
  """Return the product of two matrices, accumulated in float32.

  Args:
    a: a matrix.
    b: a matrix.
    axis_a: the contracted axis of a.
    axis_b: the contracted axis of b.

  Returns:
    A float32 matrix.
  """
  return jax.lax.dot_general(
    a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32
  )


def _gather_chunks(
  index: jax.Array, chunks: int, chunk: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
  """Return the entries at `index`, from chunks of 128 entries.

  `chunk(c, index)` returns entries 128 c to 128 c + 127, `[rows, 128]`. Only chunks between the
  smallest and largest index are read.
  """
  parts = []
  for part, *_ in _column_slices(index):
    if chunks == 1:
      parts.append(_gather(chunk(jnp.int32(0), part), part))
      continue

    def pick(c: jax.Array, x: jax.Array, part: jax.Array = part) -> jax.Array:
      return jnp.where(part >> 7 == c, _gather(chunk(c, part), part & (LANES - 1)), x)

    low, high = _min_max(part)
    dtype = jax.eval_shape(lambda part=part: chunk(jnp.int32(0), part)).dtype
    parts.append(jax.lax.fori_loop(low >> 7, (high >> 7) + 1, pick, jnp.zeros(part.shape, dtype)))
  return jnp.concatenate(parts, 1) if len(parts) > 1 else parts[0]


def _gather(x: jax.Array, index: jax.Array) -> jax.Array:
  return jnp.take_along_axis(x, index, axis=1, mode='promise_in_bounds')


def _add_by_entry(sums: Any, i: int, index: jax.Array, d: jax.Array) -> None:
  low, high = _min_max(index)

  def one(u: jax.Array, _: None) -> None:
    sums[i, _aligned_slice(u, 1), : index.shape[1]] += jnp.where(index == u, d, 0.0).sum(
      0, keepdims=True
    )

  jax.lax.fori_loop(low, high + 1, one, None)


def _column_slices(index: jax.Array) -> Iterator[tuple[jax.Array, int, int]]:
  """Yield the index in slices of 128 columns, with the first and last column of each."""
  columns = index.shape[1]
  for first in range(0, columns, LANES):
    last = min(first + LANES, columns)
    yield index[:, first:last], first, last


def _is_toeplitz(index: jax.Array) -> jax.Array:
  """Return whether the index is constant along each diagonal.

  It is if the index depends only on the distance of consecutive tokens.
  """
  rows, columns = (jax.lax.broadcasted_iota(jnp.int32, index.shape, axis) for axis in (0, 1))
  same = (index == _roll(_roll(index, 1, 0), 1, 1)) | (rows == 0) | (columns == 0)
  return jnp.where(same, 0.0, 1.0).max() == 0


def _sum_diagonals(index: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Return the index of each diagonal, and the sums of d along them, `[1, rows + columns]`."""
  low, _ = _min_max(index)
  highest = _skew(index.astype(jnp.float32), -1.0).max(0, keepdims=True)
  return jnp.maximum(highest.astype(jnp.int32), low), _skew(d, 0.0).sum(0, keepdims=True)


def _skew(x: jax.Array, empty: float) -> jax.Array:
  """Return x with row i shifted left by i, so that diagonals become columns."""
  rows = x.shape[0]
  x = jnp.concatenate([x, jnp.full((rows, rows), empty, x.dtype)], 1)
  row = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
  for bit in range((rows - 1).bit_length()):
    x = jnp.where((row >> bit) & 1 == 1, _roll(x, x.shape[1] - (1 << bit), 1), x)
  return x


def _min_max(index: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Return the minimum and maximum, computed in float32, which the TPU can reduce."""
  x = index.astype(jnp.float32)
  return x.min().astype(jnp.int32), x.max().astype(jnp.int32)


# The functions below import Pallas when called, because the import is slow.


def _aligned_slice(first: jax.Array, size: int) -> Any:
  """Return the slice of `size` entries from `first` on, a multiple of `size`."""
  from jax.experimental import pallas as pl

  return pl.ds(pl.multiple_of(first, size), size)


def _run_if(condition: jax.Array, then: Callable[[], None]) -> None:
  from jax.experimental import pallas as pl

  pl.when(condition)(then)


def _roll(x: jax.Array, shift: int, axis: int) -> jax.Array:
  from jax.experimental.pallas import tpu as pltpu

  return pltpu.roll(x, shift, axis)
