"""The parts that all three kernels share: blocks, scalar memory, visits, and the call itself."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from tfm.parts.attend.pallas.lookup import LANES
from tfm.parts.attend.pallas.schedule import Operands, Schedule
from tfm.parts.attend.pallas.tile_scores import TileInputs
from tfm.parts.attend.pallas.visits import Visits, decode


class Scalars(NamedTuple):
  """The contents of scalar memory, flattened.

  Attributes:
    rows: the number of visit lists, one per sequence or 1 for all.
    length: the length of a visit list.
    heads: the number of query heads.
    visits: the encoded visits.
    floats: the float scalars of all heads.
    ints: the int32 scalars of all heads.
    seeds: the dropout seeds of all sequences and heads.
  """

  rows: int
  length: int
  heads: int
  visits: Any
  floats: Any
  ints: Any
  seeds: Any

  def visit(self, b: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (row, column, kind) of visit `t` of sequence `b`."""
    return decode(self.visits[(0 if self.rows == 1 else b * self.length) + t])


class Terms(NamedTuple):
  """The arrays of biases and terms in a program, as in `Operands`."""

  tables: Sequence[Any]
  q_terms: Sequence[Any]
  k_terms: Sequence[Any]


class Visit(NamedTuple):
  """One visit of a tile.

  Attributes:
    row: the row of the tile.
    column: the column of the tile.
    kind: 0 if masked out, 1 if mixed, 2 if all pairs are allowed.
    first: whether it is the first visit of its row.
    last: whether it is the last visit of its row.
  """

  row: jax.Array
  column: jax.Array
  kind: jax.Array
  first: jax.Array
  last: jax.Array


class BlockSpecs(NamedTuple):
  """The block that a program reads or writes, for each kind of array.

  Attributes:
    q: for `[B, N, T, size]`, given the size of the last axis.
    k: for `[B, K, S, size]`, given the size of the last axis.
    q_row: for `[B, N, m, T]`, given m.
    k_gradient: for `[B, heads, S, size]`, given the size of the last axis.
    k_term: for `[B, heads, S, size]`, given the size of the last axis and the number of heads.
    table: for `[N, chunks, 128]`, given the number of chunks.
    q_info: for the token info of queries.
    k_info: for the token info of keys.
  """

  q: Callable[[int], pl.BlockSpec]
  k: Callable[[int], pl.BlockSpec]
  q_row: Callable[[int], pl.BlockSpec]
  k_gradient: Callable[[int], pl.BlockSpec]
  k_term: Callable[[int, int], pl.BlockSpec]
  table: Callable[[int], pl.BlockSpec]
  q_info: pl.BlockSpec
  k_info: pl.BlockSpec


def block_specs(
  schedule: Schedule, x: Operands, visits: Visits, heads: int | None = None
) -> BlockSpecs:
  """Return the blocks of a kernel.

  The grid is (sequence, query head, visit). With `heads` it is (sequence, key head, visit, query
  head of the key head), and rows of tiles are keys.

  Args:
    schedule: the static options.
    x: the arrays.
    visits: the tiles to visit.
    heads: the number of key heads with gradients, for the backward kernel of keys.

  Returns:
    The block specs.
  """
  (rows, length), N = visits.code.shape, x.q_BNTH.shape[1]
  G = N // heads if heads else None

  def spec(shape, place):
    def index(b, head, t, *rest):
      g, *scalars = rest if G else (0, *rest)
      row, column, _ = Scalars(rows, length, 0, *scalars).visit(b, t)
      i, j = (column, row) if G else (row, column)
      return place(b, head * G + g if G else head, head, i, j)

    return pl.BlockSpec(shape, index)

  def keys(size: int, M: int) -> pl.BlockSpec:
    shape = (1, 1, schedule.width, size)
    return spec(shape, lambda b, n, head, i, j: (b, jax.lax.div(n, jnp.int32(N // M)), j, 0))

  q_leaves, k_leaves = x.q_info.shape[1], x.k_info.shape[1]
  return BlockSpecs(
    q=lambda size: spec((1, 1, schedule.size, size), lambda b, n, head, i, j: (b, n, i, 0)),
    k=lambda size: keys(size, x.k_BKSH.shape[1]),
    q_row=lambda m: spec((1, 1, m, schedule.size), lambda b, n, head, i, j: (b, n, 0, i)),
    k_gradient=lambda size: spec(
      (1, 1, schedule.width, size), lambda b, n, head, i, j: (b, head, j, 0)
    ),
    k_term=keys,
    table=lambda chunks: spec((1, chunks, LANES), lambda b, n, head, i, j: (n, 0, 0)),
    q_info=spec((1, q_leaves, schedule.size), lambda b, n, head, i, j: (b, 0, i)),
    k_info=spec((1, k_leaves, schedule.width), lambda b, n, head, i, j: (b, 0, j)),
  )


def launch(
  schedule: Schedule,
  kernel: Callable[..., None],
  grid: tuple[Any, ...],
  x: Operands,
  visits: Visits,
  at: BlockSpecs,
  inputs: list[tuple[jax.Array, pl.BlockSpec]],
  outputs: list[tuple[jax.ShapeDtypeStruct, pl.BlockSpec]],
  scratch: list[jax.ShapeDtypeStruct],
) -> Any:
  """Run a kernel: compiled on a TPU, interpreted elsewhere.

  Args:
    schedule: the static options.
    kernel: called with schedule, scalars, terms, and references to inputs, outputs and scratch.
    grid: the grid of programs. Its third axis is the number of visits.
    x: the arrays. Tables and term vectors become further inputs.
    visits: the tiles to visit.
    at: the blocks.
    inputs: the other inputs and their blocks.
    outputs: the shapes of the results and their blocks.
    scratch: the shapes of arrays in vector memory.

  Returns:
    The outputs.
  """
  (rows, length), heads = visits.code.shape, x.q_BNTH.shape[1]
  n_inputs = len(inputs)
  tables = [(a, at.table(a.shape[1])) for a in x.tables]
  q_terms = [(a, at.q(a.shape[-1])) for a in x.q_terms]
  k_terms = [(a, at.k_term(a.shape[-1], a.shape[1])) for a in x.k_terms]
  inputs = [*inputs, *tables, *q_terms, *k_terms]

  cost = _cost(schedule, x, [*inputs, *outputs])

  def body(visits_ref, floats, ints, seeds, *refs):
    given, terms, results = _split(refs, n_inputs, len(inputs) - n_inputs)
    terms = Terms(*_split(terms, len(tables), len(q_terms)))
    scalars = Scalars(rows, length, heads, visits_ref, floats, ints, seeds)
    kernel(schedule, scalars, terms, *given, *results)

  def run(interpret: bool, count, *args):
    spec = pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=4,
      grid=(*grid[:2], count, *grid[3:]),
      in_specs=_second(inputs),
      out_specs=_second(outputs),
      scratch_shapes=[pltpu.VMEM(a.shape, a.dtype) for a in scratch],
    )
    semantics: Any = ('parallel', 'parallel', 'arbitrary', 'arbitrary')[: len(grid)]
    params = pltpu.CompilerParams(dimension_semantics=semantics)
    shapes = [a for a, _ in outputs]
    call = pl.pallas_call(
      body, shapes, grid_spec=spec, compiler_params=params, interpret=interpret, cost_estimate=cost
    )
    return call(*args)

  scalars = [a.reshape(-1) for a in (visits.code, x.floats, x.ints, x.seeds)]
  args = [visits.longest, *scalars, *(a for a, _ in inputs)]
  if schedule.interpret is not None:
    return run(schedule.interpret, *args)
  # Depends on the platform that the program is compiled for, not on the current backend.
  compiled, interpreted = functools.partial(run, False), functools.partial(run, True)
  return jax.lax.platform_dependent(*args, tpu=compiled, default=interpreted)


def _cost(
  schedule: Schedule, x: Operands, arrays: list[tuple[Any, pl.BlockSpec]]
) -> pl.CostEstimate:
  """Return the work of a kernel, for the scheduler of the compiler and for `tfm plan`."""
  B, N, _, H = x.q_BNTH.shape
  pairs = B * N * schedule.pairs
  moved = sum(a.size * a.dtype.itemsize for a, _ in arrays)
  return pl.CostEstimate(
    flops=2 * schedule.products * pairs * H, transcendentals=pairs, bytes_accessed=moved
  )


def _second(pairs: list[tuple[Any, pl.BlockSpec]]) -> list[pl.BlockSpec]:
  return [block for _, block in pairs]


def as_shape(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
  """Return an array shape, float32 by default."""
  return jax.ShapeDtypeStruct(shape, dtype)


def program_ids(n: int) -> tuple[jax.Array, ...]:
  """Return the indices of this program along the first n axes of the grid."""
  return tuple(pl.program_id(i) for i in range(n))


def current_visit(scalars: Scalars, b: jax.Array, t: jax.Array) -> Visit:
  """Return visit `t` of sequence `b`.

  Args:
    scalars: the contents of scalar memory.
    b: the index of the sequence.
    t: the index of the visit.

  Returns:
    The visit.
  """
  count = pl.num_programs(2)
  row, column, kind = scalars.visit(b, t)
  before, after = (scalars.visit(b, jnp.clip(t + d, 0, count - 1))[0] for d in (-1, 1))
  return Visit(row, column, kind, (t == 0) | (before != row), (t == count - 1) | (after != row))


def visit_tile(visit: Visit, tile: Callable[[bool], None]) -> None:
  """Run `tile(masked)` unless the tile is masked out.

  `masked` is False if all pairs are allowed.
  """
  for kind in (1, 2):
    pl.when(visit.kind == kind)(functools.partial(tile, kind == 1))


def tile_inputs(
  schedule: Schedule,
  scalars: Scalars,
  terms: Terms,
  visit: Visit,
  q: Any,
  k: Any,
  b: jax.Array,
  n: jax.Array,
  rows: str = 'q',
) -> TileInputs:
  """Return the inputs of a tile.

  Args:
    schedule: the static options.
    scalars: the contents of scalar memory.
    terms: the arrays of biases and terms.
    visit: the visit.
    q: the token info of queries, `[size, leaves]` if they are the rows, else `[1, leaves, size]`.
    k: the same for keys.
    b: the index of the sequence.
    n: the query head.
    rows: the side that lies along the rows of the tile, 'q' or 'k'.

  Returns:
    The inputs of the tile.
  """
  scores = schedule.scores
  i, j = (visit.row, visit.column) if rows == 'q' else (visit.column, visit.row)
  if rows == 'q':
    leaves = _columns(q), _rows(k[0])
  else:
    leaves = _rows(q[0]), _columns(k)
  (q_leaves, q_index), (k_leaves, k_index) = _infos(schedule, *leaves, i, j)

  def transposed() -> tuple[list[jax.Array], list[jax.Array]]:
    if rows == 'q':
      leaves = _rows(q[...].T), _columns(k[0].T)
    else:
      leaves = _columns(q[0].T), _rows(k[...].T)
    (q_leaves, _), (k_leaves, _) = _infos(schedule, *leaves, i, j)
    return q_leaves, k_leaves

  return TileInputs(
    q=q_leaves,
    k=k_leaves,
    transposed=transposed,
    q_index=q_index,
    k_index=k_index,
    floats=scalars.floats,
    first_float=n * scores.n_floats,
    ints=scalars.ints,
    first_int=n * scores.n_ints,
    seed=scalars.seeds[0 if scores.dropout is None else b * scalars.heads + n],
    rows=rows,
    tables=terms.tables,
    q_terms=terms.q_terms,
    k_terms=terms.k_terms,
  )


def _infos(schedule: Schedule, q: list[jax.Array], k: list[jax.Array], i, j) -> tuple[Any, Any]:
  """Return the leaves and sequence indices of the queries and keys of tile (i, j)."""
  q_side = _with_index(q, schedule.q_dtypes, i * schedule.size)
  return q_side, _with_index(k, schedule.k_dtypes, j * schedule.width)


def _rows(info: Any) -> list[jax.Array]:
  return [info[f : f + 1] for f in range(info.shape[0])]


def _columns(column: Any) -> list[jax.Array]:
  return [column[:, f : f + 1] for f in range(column.shape[1])]


def _with_index(
  leaves: list[jax.Array], dtypes: tuple[Any, ...], first: jax.Array
) -> tuple[list[jax.Array], jax.Array]:
  """Return the typed leaves of a token info, and the indices of its tokens in the sequence.

  The indices are the last leaf, if there are more leaves than dtypes, or else count from `first`.
  """
  typed = []
  for x, dtype in zip(leaves, dtypes, strict=False):
    typed.append(x != 0 if dtype == jnp.bool_ else x)
  if len(leaves) > len(dtypes):
    return typed, leaves[-1]
  shape = leaves[0].shape
  return typed, first + jax.lax.broadcasted_iota(jnp.int32, shape, shape.index(max(shape)))


def _split(refs: Sequence[Any], n: int, m: int) -> tuple[Sequence[Any], ...]:
  """Return the first n, the next m, and the remaining references."""
  return refs[:n], refs[n : n + m], refs[n + m :]
