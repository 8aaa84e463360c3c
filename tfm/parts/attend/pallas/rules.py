"""How the scores of a tile are formed inside a kernel: everything that is the same from tile to
tile.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.attend.dropout import factor
from tfm.parts.attend.pallas import lookup
from tfm.parts.attend.pallas.tiled import Tiled, spread

Leaves = Sequence[jax.Array]


class Where(NamedTuple):
  """A tile's place: the leaves of its queries' and keys' infos, their places in the row, and where
  numbers are read.

  Of queries and keys one lies along columns and the other along rows, `own` that which the kernel
  goes through row by row; `turned()` are the leaves of both the other way round. `asked` and `told`
  are what terms have of queries and of keys, `tables` what functions look up."""

  q: Leaves
  k: Leaves
  turned: Callable[[], tuple[Leaves, Leaves]]
  query: jax.Array
  key: jax.Array
  numbers: Any
  first_number: jax.Array
  whole: Any
  first_whole: jax.Array
  seed: jax.Array
  own: str
  tables: Sequence[Any]
  asked: Sequence[Any]
  told: Sequence[Any]


class Added(NamedTuple):
  """A term of the scores: a product of `asked[a]` and `told[b]`, or a look-up in one of them.

  `function`, which is number `number` of those that read arrays, says where the product counts or
  what is looked up."""

  a: int | None
  b: int | None
  function: Tiled | None
  number: int

  @property
  def product(self) -> bool:
    return self.a is not None and self.b is not None

  def of(self, own: str) -> int | None:
    """Which of the arrays of queries ('q') or keys ('k') it has."""
    return self.a if own == 'q' else self.b

  def numbers(self, at: Where, own: str) -> Any:
    """That array's block."""
    i = self.of(own)
    assert i is not None
    return (at.asked if own == 'q' else at.told)[i]


@dataclasses.dataclass(frozen=True, eq=False)
class Rules:
  """Mask, biases, terms, cap and dropout as functions of a tile.

  `inside` are the terms that are added before the cap, `outside` those after it. Functions are
  numbered: the bias 0, the mask 1, those of terms from 2 on. `places` says of each function, for
  each of its arrays, whether it is a table or among floats or integers, and which of the tables or
  where in a head's numbers of that kind it is; there are `floats` and `ints` of them a head. Keys
  from `S` on are padding."""

  mask: Tiled
  bias: Tiled | None
  inside: tuple[Added, ...]
  outside: tuple[Added, ...]
  cap: float | None
  drop: tuple[float, int] | None
  sink: bool
  S: int
  places: tuple[tuple[tuple[str, int], ...], ...]
  floats: int
  ints: int

  def found(self, product: jax.Array, at: Where) -> tuple[jax.Array, jax.Array]:
    """(the scores of a tile of products, what is left of them by the cap)."""
    for term in self.inside:
      product = product + self._term(term, at, product.shape)
    s = capped = product if self.cap is None else self.cap * jnp.tanh(product / self.cap)
    if self.bias is not None:
      s = s + spread(self._run(0, self.bias, at, at.q, at.k).astype(jnp.float32), s.shape)
    for term in self.outside:
      s = s + self._term(term, at, s.shape)
    return s, capped

  def allowed(self, at: Where, shape: tuple[int, ...]) -> jax.Array:
    """Where looking is allowed."""
    ok = spread(self._run(1, self.mask, at, at.q, at.k), shape)
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

  def learned(self, tables: Sequence[jax.Array]) -> list[int]:
    """Which of the tables have gradients: those of floats in the bias."""
    places = () if self.bias is None else self.places[0]
    return [i for kind, i in places if kind == 'table' and tables[i].dtype == jnp.float32]

  def numbers_of(self, ds: jax.Array, at: Where, sums: dict[int, Any]) -> jax.Array:
    """The gradient of the bias's numbers, `[1, floats]`, given that of a tile of scores; its
    tables' goes to `sums`.
    """
    assert self.bias is not None
    bias, looked_up = self.bias, []
    scalar, look_up = self._reading(0, at)

    def recorded(i: int, index: jax.Array) -> jax.Array:
      looked_up.append((i, index, look_up(i, index)))
      return looked_up[-1][2]

    bias(at.q, at.k, scalar, recorded)
    single = [i for i, (kind, _) in enumerate(self.places[0]) if kind == 'float']

    def again(scalars: list[jax.Array], tables: list[jax.Array]) -> jax.Array:
      given, tiles = dict(zip(single, scalars, strict=True)), iter(tables)
      x = bias(
        at.q, at.k, lambda i: given[i] if i in given else scalar(i), lambda i, _: next(tiles)
      )
      return spread(x.astype(jnp.float32), ds.shape)

    _, pull = jax.vjp(again, [scalar(i) for i in single], [x for _, _, x in looked_up])
    d_scalars, d_tables = pull(ds)
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, self.floats), 1)
    row = jnp.zeros((1, self.floats), jnp.float32)
    for i, d in zip(single, d_scalars, strict=True):
      row = jnp.where(lane == self.places[0][i][1], row + d, row)
    for (i, index, _), d_tile in zip(looked_up, d_tables, strict=True):
      if (table := self.places[0][i][1]) in sums:
        lookup.count(sums[table], index, d_tile)
    return row

  def shares(self, ds: jax.Array, inner: jax.Array, at: Where, sums: dict[int, Any]) -> None:
    """Adds to `sums` the gradients of what terms have of the kernel's own, given those of scores
    and of products.
    """
    for term in self.inside + self.outside:
      i = term.of(at.own)
      if i is None or i not in sums:
        continue
      d = inner if term in self.inside else ds
      if term.product:
        other = term.numbers(at, 'k' if at.own == 'q' else 'q')
        d = d if term.function is None else jnp.where(self._between(term, at, d.shape), d, 0.0)
        sums[i][...] += lookup.dot(d.astype(other.dtype), other[0, 0], 1, 0)
      else:
        lookup.count_each(sums[i], self._between(term, at, d.shape[::-1], *at.turned()), d.T)

  def multiplied(self, own: str, i: int) -> bool:
    """Whether what terms have of queries or of keys, number i of it, is a factor and not looked up."""
    return next(t.product for t in self.inside + self.outside if t.of(own) == i)

  def _term(self, term: Added, at: Where, shape: tuple[int, ...]) -> jax.Array:
    """A tile of what the term adds."""
    own, other = at.own, 'k' if at.own == 'q' else 'q'
    if term.product:
      found = lookup.dot(term.numbers(at, own)[0, 0], term.numbers(at, other)[0, 0], 1, 1)
      return (
        found if term.function is None else jnp.where(self._between(term, at, shape), found, 0.0)
      )
    if term.of(own) is not None:
      return lookup.each(term.numbers(at, own), self._between(term, at, shape))
    return lookup.each(
      term.numbers(at, other), self._between(term, at, shape[::-1], *at.turned())
    ).T

  def _between(
    self,
    term: Added,
    at: Where,
    shape: tuple[int, ...],
    q: Leaves | None = None,
    k: Leaves | None = None,
  ) -> jax.Array:
    """What the term's function says, of the infos as they lie or of these."""
    return spread(
      self._run(term.number, term.function, at, at.q if q is None else q, at.k if k is None else k),
      shape,
    )

  def _run(self, number: int, function: Tiled | None, at: Where, q: Leaves, k: Leaves) -> jax.Array:
    assert function is not None
    return function(q, k, *self._reading(number, at))

  def _reading(
    self, number: int, at: Where
  ) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """The functions by which function `number` reads the head's numbers."""
    places = self.places[number]

    def scalar(i: int) -> jax.Array:
      kind, offset = places[i]
      return (
        at.numbers[at.first_number + offset]
        if kind == 'float'
        else at.whole[at.first_whole + offset]
      )

    return scalar, lambda i, index: lookup.shared(at.tables[places[i][1]], index)
