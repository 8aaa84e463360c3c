"""Look-ups inside a kernel, 128 entries at a time, and the sums that are their gradients."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.attend.pallas.tiled import spread

LANES = 128
#: From how many entries on sums are made along diagonals first.
_MANY = 16


def shared(table: Any, index: jax.Array) -> jax.Array:
  """A head's table `[1, chunks, 128]` at `index`, `[rows, columns]`, either of which may be 1."""
  rows, columns = index.shape
  # The chip takes numbers of like places only, and whole registers of them.
  index = spread(index, (8 if rows == 1 else rows, LANES if columns == 1 else columns))
  chunk = lambda c, like: jnp.broadcast_to(table[0, _from(c, 1), :], (like.shape[0], LANES))
  return _gathered(index, table.shape[1], chunk)[:rows, :columns]


def each(numbers: Any, index: jax.Array) -> jax.Array:
  """Of each row of `numbers`, `[1, 1, rows, chunks of 128]`, what stands at `index`, `[rows,
  columns]`.
  """
  chunk = lambda c, _: numbers[0, 0, :, _from(c * LANES, LANES)].astype(jnp.float32)
  return _gathered(index, numbers.shape[3] // LANES, chunk)


def count(sums: Any, index: jax.Array, d: jax.Array) -> None:
  """Adds to row u of `sums`, `[1, entries, 128]`, the numbers of d where `index` is u; its columns
  are to be summed.
  """
  if d.shape[1] == 1:
    lane = jax.lax.broadcasted_iota(jnp.int32, (d.shape[0], LANES), 1)
    index, d = spread(index, lane.shape), jnp.where(lane == 0, spread(d, lane.shape), 0.0)

  def entries(index: jax.Array, d: jax.Array) -> None:
    for part, first, last in _parts(index):
      _summed(sums, 0, part, d[:, first:last])

  if min(index.shape) == 1:
    entries(index, d)
    return
  low, high = _range(index)
  short = _straight(index) & (high - low >= _MANY)
  _when(short, lambda: entries(*_diagonals(index, d)))
  _when(~short, lambda: entries(index, d))


def count_each(sums: Any, index: jax.Array, d: jax.Array) -> None:
  """Adds to `sums`, `[columns / 128, entries, 128]`, in row u of each column the numbers of d where
  `index` is u.
  """
  for i, (part, first, last) in enumerate(_parts(index)):
    _summed(sums, i, part, d[:, first:last])


def dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
  """a b in float32."""
  return jax.lax.dot_general(
    a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32
  )


def _gathered(
  index: jax.Array, chunks: int, chunk: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
  """What `chunk(c, index)`, `[rows, 128]`, has at `index` - 128 c: of many chunks those that the
  indices fall on.
  """
  found = []
  for part, *_ in _parts(index):
    if chunks == 1:
      found.append(_taken(chunk(jnp.int32(0), part), part))
      continue

    def pick(c: jax.Array, x: jax.Array, part: jax.Array = part) -> jax.Array:
      return jnp.where(part >> 7 == c, _taken(chunk(c, part), part & (LANES - 1)), x)

    low, high = _range(part)
    dtype = jax.eval_shape(lambda part=part: chunk(jnp.int32(0), part)).dtype
    found.append(jax.lax.fori_loop(low >> 7, (high >> 7) + 1, pick, jnp.zeros(part.shape, dtype)))
  return jnp.concatenate(found, 1) if len(found) > 1 else found[0]


def _taken(x: jax.Array, index: jax.Array) -> jax.Array:
  return jnp.take_along_axis(x, index, axis=1, mode='promise_in_bounds')


def _summed(sums: Any, i: int, index: jax.Array, d: jax.Array) -> None:
  low, high = _range(index)

  def one(u: jax.Array, _: None) -> None:
    sums[i, _from(u, 1), : index.shape[1]] += jnp.where(index == u, d, 0.0).sum(0, keepdims=True)

  jax.lax.fori_loop(low, high + 1, one, None)


def _parts(index: jax.Array) -> Iterator[tuple[jax.Array, int, int]]:
  """The index in runs of 128 columns, and where each begins and ends."""
  columns = index.shape[1]
  for first in range(0, columns, LANES):
    last = min(first + LANES, columns)
    yield index[:, first:last], first, last


def _straight(index: jax.Array) -> jax.Array:
  """Whether all of a diagonal are the same, as they are where neighbours stand one further than
  each other.
  """
  rows, columns = (jax.lax.broadcasted_iota(jnp.int32, index.shape, axis) for axis in (0, 1))
  same = (index == _rolled(_rolled(index, 1, 0), 1, 1)) | (rows == 0) | (columns == 0)
  return jnp.where(same, 0.0, 1.0).max() == 0


def _diagonals(index: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
  """What stands on each diagonal of the index, and the sums of d along them, `[1, rows + columns]`."""
  low, _ = _range(index)
  highest = _skewed(index.astype(jnp.float32), -1.0).max(0, keepdims=True)
  return jnp.maximum(highest.astype(jnp.int32), low), _skewed(d, 0.0).sum(0, keepdims=True)


def _skewed(x: jax.Array, empty: float) -> jax.Array:
  """Row i moved i places to the left, so that diagonals are columns."""
  rows = x.shape[0]
  x = jnp.concatenate([x, jnp.full((rows, rows), empty, x.dtype)], 1)
  row = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
  for bit in range((rows - 1).bit_length()):
    x = jnp.where((row >> bit) & 1 == 1, _rolled(x, x.shape[1] - (1 << bit), 1), x)
  return x


def _range(index: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The smallest and the largest; vectors of float32 are what can be reduced."""
  x = index.astype(jnp.float32)
  return x.min().astype(jnp.int32), x.max().astype(jnp.int32)


# What follows is of Pallas, which is slow to import, and not needed but inside kernels.


def _from(first: jax.Array, size: int) -> Any:
  """The `size` places from `first` on, a multiple of it."""
  from jax.experimental import pallas as pl

  return pl.ds(pl.multiple_of(first, size), size)


def _when(condition: jax.Array, then: Callable[[], None]) -> None:
  from jax.experimental import pallas as pl

  pl.when(condition)(then)


def _rolled(x: jax.Array, shift: int, axis: int) -> jax.Array:
  from jax.experimental.pallas import tpu as pltpu

  return pltpu.roll(x, shift, axis)
