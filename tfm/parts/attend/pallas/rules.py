"""How the scores of a tile are formed inside a kernel: everything that is the same from tile to tile."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.attend.dropout import factor
from tfm.parts.attend.pallas.tiled import Tiled, spread


class Where(NamedTuple):
  """A tile's place: the leaves of its queries' and keys' sites, their places in the row, and where numbers are read.

  Of queries and keys one lies along columns and the other along rows.
  """

  q: Sequence[jax.Array]
  k: Sequence[jax.Array]
  query: jax.Array
  key: jax.Array
  numbers: Any
  first_number: jax.Array
  whole: Any
  first_whole: jax.Array
  seed: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Rules:
  """Mask, biases, cap and dropout as functions of a tile.

  `places` says for each array of `bias` and then of `mask` whether its numbers are floats and where in a head's numbers
  of that kind they begin; there are `floats` and `ints` of them a head. Keys from `S` on are padding.
  """

  mask: Tiled
  bias: Tiled | None
  cap: float | None
  drop: tuple[float, int] | None
  sink: bool
  S: int
  places: tuple[tuple[bool, int], ...]
  floats: int
  ints: int

  def found(self, product: jax.Array, at: Where) -> tuple[jax.Array, jax.Array]:
    """(the scores of a tile of products, what is left of them by the cap)."""
    capped = product if self.cap is None else self.cap * jnp.tanh(product / self.cap)
    if self.bias is None:
      return capped, capped
    bias = self.bias(at.q, at.k, *self._reading(at, 0))
    return capped + spread(bias.astype(jnp.float32), capped.shape), capped

  def allowed(self, at: Where, shape: tuple[int, ...]) -> jax.Array:
    """Where looking is allowed."""
    start = 0 if self.bias is None else len(self.bias.arrays)
    ok = spread(self.mask(at.q, at.k, *self._reading(at, start)), shape)
    return ok & spread(at.key < self.S, shape)

  def kept(self, at: Where) -> jax.Array | None:
    """What dropout multiplies the probabilities by."""
    if self.drop is None:
      return None
    rate, first = self.drop
    seed = jax.lax.bitcast_convert_type(at.seed, jnp.uint32)
    return factor(seed, (at.query + first).astype(jnp.uint32), at.key.astype(jnp.uint32), rate)

  def uncapped(self, ds: jax.Array, capped: jax.Array) -> jax.Array:
    """The gradient of the products, given that of the scores."""
    return ds if self.cap is None else ds * (1 - jnp.square(capped / self.cap))

  def numbers_of(self, ds: jax.Array, at: Where) -> jax.Array:
    """The gradient of the bias's numbers, `[1, floats]`, given that of a tile of scores."""
    assert self.bias is not None
    bias, looked_up = self.bias, []
    scalar, lookup = self._reading(at, 0)

    def recorded(i: int, index: jax.Array) -> jax.Array:
      looked_up.append((i, index, lookup(i, index)))
      return looked_up[-1][2]

    bias(at.q, at.k, scalar, recorded)
    single = sorted({i for i in self._singles() if self.places[i][0]})

    def again(scalars: list[jax.Array], tables: list[jax.Array]) -> jax.Array:
      given, tiles = dict(zip(single, scalars, strict=True)), iter(tables)
      x = bias(at.q, at.k, lambda i: given[i] if i in given else scalar(i), lambda i, _: next(tiles))
      return spread(x.astype(jnp.float32), ds.shape)

    _, pull = jax.vjp(again, [scalar(i) for i in single], [x for _, _, x in looked_up])
    d_scalars, d_tables = pull(ds)
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, self.floats), 1)
    row = jnp.zeros((1, self.floats), jnp.float32)
    for i, d in zip(single, d_scalars, strict=True):
      row = jnp.where(lane == self.places[i][1], row + d, row)
    for (i, index, _), d_tile in zip(looked_up, d_tables, strict=True):
      if self.places[i][0]:
        row = _counted(row, lane - self.places[i][1], index, d_tile)
    return row

  def _singles(self) -> list[int]:
    """The arrays of the bias that are one number a head."""
    assert self.bias is not None
    return [i for (_, axis), i in self.bias.leaves.items() if axis is None]

  def _reading(self, at: Where, start: int) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """The functions by which the mask or the bias, whose arrays begin at `start`, reads numbers of the head."""

    def place(i: int) -> tuple[Any, Any]:
      floats, offset = self.places[start + i]
      return (at.numbers, at.first_number + offset) if floats else (at.whole, at.first_whole + offset)

    def scalar(i: int) -> jax.Array:
      ref, first = place(i)
      return ref[first]

    def lookup(i: int, index: jax.Array) -> jax.Array:
      ref, first = place(i)
      # Of a long table a tile needs the few entries that its distances fall on.
      pick = lambda u, x: jnp.where(index == u, ref[first + u], x)
      return jax.lax.fori_loop(*_range(index), pick, jnp.zeros(index.shape, ref.dtype))

    return scalar, lookup


def _range(index: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The smallest of a tile's numbers and the one after the largest; vectors of float32 are what can be reduced."""
  x = index.astype(jnp.float32)
  return x.min().astype(jnp.int32), x.max().astype(jnp.int32) + 1


def _counted(row: jax.Array, lane: jax.Array, index: jax.Array, d: jax.Array) -> jax.Array:
  """`row`, with the sum of d where `index` is u added to lane u."""
  one = lambda u, row: jnp.where(lane == u, row + jnp.sum(jnp.where(index == u, d, 0.0)), row)
  return jax.lax.fori_loop(*_range(index), one, row)
