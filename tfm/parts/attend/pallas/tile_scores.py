"""The scores of a tile inside a kernel: mask, biases, terms, cap and dropout."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.attend.dropout import factor
from tfm.parts.attend.pallas import lookup
from tfm.parts.attend.pallas.tiled import Tiled, broadcast

Leaves = Sequence[jax.Array]


class TileInputs(NamedTuple):
  """The inputs of one tile of scores.

  Queries lie along the rows and keys along the columns, or the other way round.

  Attributes:
    q: the leaves of the queries' token info.
    k: the leaves of the keys' token info.
    transposed: returns both for the transposed tile.
    q_index: the indices of the queries in the sequence.
    k_index: the indices of the keys in the sequence.
    floats: the float scalars of all heads, in scalar memory.
    first_float: the index of the first float of this head.
    ints: the int32 scalars of all heads, in scalar memory.
    first_int: the index of the first int32 of this head.
    seed: the dropout seed of this sequence and head.
    rows: the side that lies along the rows, 'q' or 'k'.
    tables: the lookup tables of this head.
    q_terms: the query vectors of terms.
    k_terms: the key vectors of terms.
  """

  q: Leaves
  k: Leaves
  transposed: Callable[[], tuple[Leaves, Leaves]]
  q_index: jax.Array
  k_index: jax.Array
  floats: Any
  first_float: jax.Array
  ints: Any
  first_int: jax.Array
  seed: jax.Array
  rows: str
  tables: Sequence[Any]
  q_terms: Sequence[Any]
  k_terms: Sequence[Any]

  @property
  def columns(self) -> str:
    """The side that lies along the columns of the tile."""
    return 'k' if self.rows == 'q' else 'q'


class KernelTerm(NamedTuple):
  """An additive term of the scores: a product of two vectors, or a lookup in a vector.

  Attributes:
    q_array: the index in `q_terms` of the query vectors, or None.
    k_array: the index in `k_terms` of the key vectors, or None.
    function: the pairs that a product applies to (None: all), or the entries to look up.
    number: the number of `function` among the functions that read arrays.
  """

  q_array: int | None
  k_array: int | None
  function: Tiled | None
  number: int

  @property
  def is_product(self) -> bool:
    """Whether the term is a product of two vectors."""
    return self.q_array is not None and self.k_array is not None

  def array(self, side: str) -> int | None:
    """Return the index of the vectors of one side, 'q' or 'k', or None."""
    return self.q_array if side == 'q' else self.k_array

  def block(self, at: TileInputs, side: str) -> Any:
    """Return the block of the vectors of one side."""
    i = self.array(side)
    assert i is not None
    return (at.q_terms if side == 'q' else at.k_terms)[i]


@dataclasses.dataclass(frozen=True, eq=False)
class TileScores:
  """Computes the scores of a tile: everything that is the same for all tiles.

  Functions are numbered: the bias is 0, the mask 1, the functions of terms follow from 2.

  Attributes:
    mask: the mask.
    bias: the sum of all biases, or None.
    before_cap: the terms that are added before the cap.
    after_cap: the terms that are added after the cap.
    cap: the score cap, or None.
    dropout: the dropout rate and the index of the first query, or None.
    sink: whether the first float of a head is a sink logit.
    S: the number of keys without padding.
    places: for each function, for each of its arrays, the kind ('table', 'float' or 'int') and the
      index of the table or scalar.
    n_floats: the number of floats per head.
    n_ints: the number of int32 scalars per head.
  """

  mask: Tiled
  bias: Tiled | None
  before_cap: tuple[KernelTerm, ...]
  after_cap: tuple[KernelTerm, ...]
  cap: float | None
  dropout: tuple[float, int] | None
  sink: bool
  S: int
  places: tuple[tuple[tuple[str, int], ...], ...]
  n_floats: int
  n_ints: int

  @property
  def terms(self) -> tuple[KernelTerm, ...]:
    """All terms."""
    return self.before_cap + self.after_cap

  def compute(self, product: jax.Array, at: TileInputs) -> tuple[jax.Array, jax.Array]:
    """Return the scores of a tile of products q k, and the capped products."""
    for term in self.before_cap:
      product = product + self._term_tile(term, at, product.shape)
    s = capped = product if self.cap is None else self.cap * jnp.tanh(product / self.cap)
    if self.bias is not None:
      s = s + broadcast(self._run(0, self.bias, at, at.q, at.k).astype(jnp.float32), s.shape)
    for term in self.after_cap:
      s = s + self._term_tile(term, at, s.shape)
    return s, capped

  def allowed(self, at: TileInputs, shape: tuple[int, ...]) -> jax.Array:
    """Return where attention is allowed."""
    ok = broadcast(self._run(1, self.mask, at, at.q, at.k), shape)
    return ok & broadcast(at.k_index < self.S, shape)

  def dropout_factor(self, at: TileInputs) -> jax.Array | None:
    """Return the dropout factors of the probabilities, or None."""
    if self.dropout is None:
      return None
    rate, first = self.dropout
    seed = jax.lax.bitcast_convert_type(at.seed, jnp.uint32)
    query, key = (at.q_index + first).astype(jnp.uint32), at.k_index.astype(jnp.uint32)
    return factor(seed, query, key, rate)

  def uncapped_gradient(self, ds: jax.Array, capped: jax.Array) -> jax.Array:
    """Return the gradient of the products, given that of the scores."""
    return ds if self.cap is None else ds * (1 - jnp.square(capped / self.cap))

  def learned_tables(self, tables: Sequence[jax.Array]) -> list[int]:
    """Return the indices of tables with gradients: the float tables of the bias."""
    places = () if self.bias is None else self.places[0]
    return [i for kind, i in places if kind == 'table' and tables[i].dtype == jnp.float32]

  def bias_gradient(self, ds: jax.Array, at: TileInputs, table_sums: dict[int, Any]) -> jax.Array:
    """Return the gradient of the bias's floats, and add its table gradients to `table_sums`.

    Args:
      ds: the gradient of a tile of scores.
      at: the inputs of the tile.
      table_sums: the sums for each table that has a gradient, by index.

    Returns:
      The gradient of the floats of this head, `[1, n_floats]`.
    """
    assert self.bias is not None
    bias, lookups = self.bias, []
    scalar, look_up = self._readers(0, at)

    def recorded(i: int, index: jax.Array) -> jax.Array:
      lookups.append((i, index, look_up(i, index)))
      return lookups[-1][2]

    bias(at.q, at.k, scalar, recorded)
    single = [i for i, (kind, _) in enumerate(self.places[0]) if kind == 'float']

    def replayed(scalars: list[jax.Array], tables: list[jax.Array]) -> jax.Array:
      given, tiles = dict(zip(single, scalars, strict=True)), iter(tables)
      read = lambda i: given[i] if i in given else scalar(i)
      x = bias(at.q, at.k, read, lambda i, _: next(tiles))
      return broadcast(x.astype(jnp.float32), ds.shape)

    scalars = [scalar(i) for i in single]
    _, pull = jax.vjp(replayed, scalars, [x for _, _, x in lookups])
    d_scalars, d_tables = pull(ds)
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, self.n_floats), 1)
    row = jnp.zeros((1, self.n_floats), jnp.float32)
    for i, d in zip(single, d_scalars, strict=True):
      row = jnp.where(lane == self.places[0][i][1], row + d, row)
    for (i, index, _), d_tile in zip(lookups, d_tables, strict=True):
      if (table := self.places[0][i][1]) in table_sums:
        lookup.add_table_gradient(table_sums[table], index, d_tile)
    return row

  def add_term_gradients(
    self, ds: jax.Array, d_product: jax.Array, at: TileInputs, sums: dict[int, Any]
  ) -> None:
    """Add the gradients of the term vectors of the row side to `sums`.

    Args:
      ds: the gradient of the scores.
      d_product: the gradient of the products q k, before the cap.
      at: the inputs of the tile.
      sums: the sums for each array of term vectors that has a gradient, by index.
    """
    for term in self.terms:
      i = term.array(at.rows)
      if i is None or i not in sums:
        continue
      d = d_product if term in self.before_cap else ds
      if term.is_product:
        other = term.block(at, at.columns)
        if term.function is not None:
          d = jnp.where(self._term_function(term, at, d.shape), d, 0.0)
        sums[i][...] += lookup.dot(d.astype(other.dtype), other[0, 0], 1, 0)
      else:
        index = self._term_function(term, at, d.shape[::-1], *at.transposed())
        lookup.add_row_gradients(sums[i], index, d.T)

  def is_factor(self, side: str, i: int) -> bool:
    """Return whether term vectors `i` of a side are factors of a product, not looked up."""
    return next(t.is_product for t in self.terms if t.array(side) == i)

  def _term_tile(self, term: KernelTerm, at: TileInputs, shape: tuple[int, ...]) -> jax.Array:
    """Return a tile of the term."""
    if term.is_product:
      rows, columns = term.block(at, at.rows)[0, 0], term.block(at, at.columns)[0, 0]
      product = lookup.dot(rows, columns, 1, 1)
      if term.function is None:
        return product
      return jnp.where(self._term_function(term, at, shape), product, 0.0)
    if term.array(at.rows) is not None:
      index = self._term_function(term, at, shape)
      return lookup.lookup_rows(term.block(at, at.rows), index)
    index = self._term_function(term, at, shape[::-1], *at.transposed())
    return lookup.lookup_rows(term.block(at, at.columns), index).T

  def _term_function(
    self,
    term: KernelTerm,
    at: TileInputs,
    shape: tuple[int, ...],
    q: Leaves | None = None,
    k: Leaves | None = None,
  ) -> jax.Array:
    """Return the term's function on the tile, or on the given leaves."""
    if q is None or k is None:
      q, k = at.q, at.k
    return broadcast(self._run(term.number, term.function, at, q, k), shape)

  def _run(
    self, number: int, function: Tiled | None, at: TileInputs, q: Leaves, k: Leaves
  ) -> jax.Array:
    assert function is not None
    return function(q, k, *self._readers(number, at))

  def _readers(
    self, number: int, at: TileInputs
  ) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Return the functions that read scalars and tables of this head for function `number`."""
    places = self.places[number]

    def scalar(i: int) -> jax.Array:
      kind, offset = places[i]
      if kind == 'float':
        return at.floats[at.first_float + offset]
      return at.ints[at.first_int + offset]

    return scalar, lambda i, index: lookup.lookup_table(at.tables[places[i][1]], index)
