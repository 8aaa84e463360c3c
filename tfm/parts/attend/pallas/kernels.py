"""The kernels: forward, the gradient of the queries, the gradients of keys and values
(arXiv:2307.08691).
"""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from tfm.parts.attend.pallas.lookup import LANES, dot
from tfm.parts.attend.pallas.rules import Where
from tfm.parts.attend.pallas.schedule import Operands, Schedule
from tfm.parts.attend.pallas.visits import Visits, decoded

_LOW = float(jnp.finfo(jnp.float32).min)


def forward(schedule: Schedule, x: Operands, visits: Visits) -> tuple[jax.Array, jax.Array]:
  """(y `[B, N, T, Hv]`, the logarithm of each query's sum of exponentials `[B, N, 1, T]`)."""
  B, N, T, H = x.q_BNTH.shape
  Hv, size, at = x.v_BKSH.shape[-1], schedule.size, _blocks(schedule, x, visits)
  return _call(
    schedule, _forward, (B, N, visits.most), x, visits,
    at,
    [(x.q_BNTH, at.q(H)), (x.k_BKSH, at.k(H)), (x.v_BKSH, at.k(Hv)), (x.q_info, at.q_info), (x.k_info, at.k_info)],
    [(_shape((B, N, T, Hv), x.v_BKSH.dtype), at.q(Hv)), (_shape((B, N, 1, T)), at.row(1))],
    [_shape((size, 1)), _shape((size, 1)), _shape((size, Hv)), _shape((size, x.q_info.shape[1]), jnp.int32)],
  )  # fmt: skip


def _forward(
  schedule, scalars, terms, q, k, v, q_info, k_info, y, lse, top, total, mixed, q_column
):
  rules, (b, n, t) = schedule.rules, _ids(3)
  turn = _turn(scalars, b, t)

  @pl.when(turn.first)
  def _():
    # A row that sees nobody has no largest: against half of the lowest all its exponentials are 0.
    start = scalars.numbers[n * rules.floats] if rules.sink else jnp.float32(_LOW / 2)
    top[...] = jnp.full(top.shape, start, jnp.float32)
    total[...] = jnp.full(total.shape, 1.0 if rules.sink else 0.0, jnp.float32)
    mixed[...] = jnp.zeros(mixed.shape, jnp.float32)
    q_column[...] = q_info[0].T

  def visit(masked: bool):
    at = _where(schedule, scalars, terms, turn, q_column, k_info, b, n)
    s, _ = rules.found(dot(q[0, 0], k[0, 0], 1, 1), at)
    if masked:
      s = jnp.where(rules.allowed(at, s.shape), s, _LOW)
    highest = jnp.maximum(top[...], s.max(1, keepdims=True))
    e, shrink = jnp.exp(s - highest), jnp.exp(top[...] - highest)
    top[...] = highest
    total[...] = total[...] * shrink + e.sum(1, keepdims=True)
    kept = rules.kept(at)
    e = (e if kept is None else e * kept).astype(v.dtype)
    mixed[...] = mixed[...] * shrink + dot(e, v[0, 0], 1, 0)

  _either(turn, visit)

  @pl.when(turn.last)
  def _():
    sure = jnp.where(total[...] > 0, total[...], 1.0)
    y[0, 0] = (mixed[...] / sure).astype(y.dtype)
    lse[0, 0] = jnp.broadcast_to(top[...] + jnp.log(sure), (schedule.size, LANES)).T[:1]


def backward_queries(
  schedule: Schedule, x: Operands, visits: Visits, g_BNTH: jax.Array, stats: jax.Array
) -> list[jax.Array]:
  """[dq, the gradient of the numbers `[B, N, 1, floats]`, of the tables `[B, N, chunks, 128]`, of
  what is `asked`].

  `stats` `[B, N, 2, T]` are lse and sum g y.
  """
  B, N, T, H = x.q_BNTH.shape
  Hv, size, floats, at = (
    x.v_BKSH.shape[-1],
    schedule.size,
    schedule.rules.floats,
    _blocks(schedule, x, visits),
  )
  a_head = lambda *shape: pl.BlockSpec((1, 1, *shape), lambda b, n, t, *_: (b, n, 0, 0))
  learned = [x.tables[i].shape[1:] for i in schedule.rules.learned(x.tables)]
  return _call(
    schedule, _backward_queries, (B, N, visits.most), x, visits,
    at,
    [(x.q_BNTH, at.q(H)), (x.k_BKSH, at.k(H)), (x.v_BKSH, at.k(Hv)), (g_BNTH, at.q(Hv)), (stats, at.row(2)),
     (x.q_info, at.q_info), (x.k_info, at.k_info)],
    [(_shape((B, N, T, H), x.q_BNTH.dtype), at.q(H)), (_shape((B, N, 1, floats)), a_head(1, floats)),
     *((_shape((B, N, *shape)), a_head(*shape)) for shape in learned),
     *((_shape(a.shape, a.dtype), at.q(a.shape[-1])) for a in x.asked)],
    [_shape((size, H)), _shape((size, 2)), _shape((size, x.q_info.shape[1]), jnp.int32),
     *(_shape((1, chunks * LANES, LANES)) for chunks, _ in learned),
     *(_sums(schedule, 'q', i, size, a.shape[-1]) for i, a in enumerate(x.asked))],
  )  # fmt: skip


def _backward_queries(
  schedule, scalars, terms, q, k, v, g, stats, q_info, k_info, dq, d_numbers, *rest
):
  rules, (b, n, t) = schedule.rules, _ids(3)
  turn, learned = _turn(scalars, b, t), rules.learned(terms.tables)
  outs, (sums, stat, q_column, *kept_sums) = _split(rest, len(learned) + len(terms.asked))
  of_tables, of_asked = _split(kept_sums, len(learned))
  d_tables, d_asked = _split(outs, len(learned))

  @pl.when(t == 0)
  def _():
    for ref in (d_numbers, *of_tables):
      ref[...] = jnp.zeros(ref.shape, jnp.float32)

  @pl.when(turn.first)
  def _():
    for ref in (sums, *of_asked):
      ref[...] = jnp.zeros(ref.shape, jnp.float32)
    stat[...] = stats[0, 0].T
    q_column[...] = q_info[0].T

  def visit(masked: bool):
    at = _where(schedule, scalars, terms, turn, q_column, k_info, b, n)
    s, capped = rules.found(dot(q[0, 0], k[0, 0], 1, 1), at)
    p = jnp.exp(s - stat[:, :1])
    if masked:
      p = jnp.where(rules.allowed(at, s.shape), p, 0.0)
    dp, kept = dot(g[0, 0], v[0, 0], 1, 1), rules.kept(at)
    ds = p * ((dp if kept is None else dp * kept) - stat[:, 1:])
    if rules.bias is not None:
      d_numbers[0, 0] += rules.numbers_of(ds, at, dict(zip(learned, of_tables, strict=True)))
    inner = rules.uncapped(ds, capped)
    rules.shares(ds, inner, at, dict(enumerate(of_asked)))
    sums[...] += dot(inner.astype(k.dtype), k[0, 0], 1, 0)

  _either(turn, visit)

  @pl.when(turn.last)
  def _():
    dq[0, 0] = sums[...].astype(dq.dtype)
    for d, of in zip(d_asked, of_asked, strict=True):
      _found(d, of)

  @pl.when(t == pl.num_programs(2) - 1)
  def _():
    for d, of in zip(d_tables, of_tables, strict=True):
      for c in range(d.shape[2]):
        d[0, 0, c : c + 1] = of[0, c * LANES : (c + 1) * LANES].T.sum(0, keepdims=True)


def backward_keys(
  schedule: Schedule, x: Operands, visits: Visits, g_BNTH: jax.Array, stats: jax.Array
) -> list[jax.Array]:
  """[dk, dv, the gradients of what is `told`], each of as many heads as have gradients of their
  own.

  `visits` go by tiles of keys, and within one by tiles of queries, for all query heads of such a
  head."""
  learned = [i for i in range(len(x.told)) if i not in schedule.constant]
  (B, _, S, H), heads = x.k_BKSH.shape, x.heads(learned)
  Hv, width, at = x.v_BKSH.shape[-1], schedule.width, _blocks(schedule, x, visits, heads)
  dtype = lambda a: a.dtype if a.shape[1] == heads else jnp.float32
  return _call(
    schedule, _backward_keys, (B, heads, visits.most, x.q_BNTH.shape[1] // heads), x, visits,
    at,
    [(x.q_BNTH, at.q(H)), (x.k_BKSH, at.k(H)), (x.v_BKSH, at.k(Hv)), (g_BNTH, at.q(Hv)), (stats, at.row(2)),
     (x.q_info, at.q_info), (x.k_info, at.k_info)],
    [(_shape((B, heads, S, a.shape[-1]), dtype(a)), at.own(a.shape[-1]))
     for a in (x.k_BKSH, x.v_BKSH, *(x.told[i] for i in learned))],
    [_shape((width, H)), _shape((width, Hv)), _shape((width, x.k_info.shape[1]), jnp.int32),
     *(_sums(schedule, 'k', i, width, x.told[i].shape[-1]) for i in learned)],
  )  # fmt: skip


def _backward_keys(schedule, scalars, terms, q, k, v, g, stats, q_info, k_info, dk, dv, *rest):
  rules, (b, head, t, i), G = schedule.rules, _ids(4), pl.num_programs(3)
  learned = [i for i in range(len(terms.told)) if i not in schedule.constant]
  d_told, (sums_k, sums_v, k_column, *of_told) = _split(rest, len(learned))
  turn = _turn(scalars, b, t)

  @pl.when(turn.first & (i == 0))
  def _():
    for ref in (sums_k, sums_v, *of_told):
      ref[...] = jnp.zeros(ref.shape, jnp.float32)
    k_column[...] = k_info[0].T

  def visit(masked: bool):
    # All tiles lie keys by queries here: what belongs to a query is a row.
    at = _where(schedule, scalars, terms, turn, q_info, k_column, b, head * G + i, 'k')
    s, capped = rules.found(dot(k[0, 0], q[0, 0], 1, 1), at)
    p = jnp.exp(s - stats[0, 0, :1])
    if masked:
      p = jnp.where(rules.allowed(at, s.shape), p, 0.0)
    dp, kept = dot(v[0, 0], g[0, 0], 1, 1), rules.kept(at)
    given_p, dp = (p, dp) if kept is None else (p * kept, dp * kept)
    sums_v[...] += dot(given_p.astype(g.dtype), g[0, 0], 1, 0)
    ds = p * (dp - stats[0, 0, 1:])
    inner = rules.uncapped(ds, capped)
    rules.shares(ds, inner, at, dict(zip(learned, of_told, strict=True)))
    sums_k[...] += dot(inner.astype(q.dtype), q[0, 0], 1, 0)

  _either(turn, visit)

  @pl.when(turn.last & (i == G - 1))
  def _():
    dk[0, 0] = sums_k[...].astype(dk.dtype)
    dv[0, 0] = sums_v[...].astype(dv.dtype)
    for d, of in zip(d_told, of_told, strict=True):
      _found(d, of)


class _Scalars(NamedTuple):
  """What the programs have in scalar memory, flat: the visits of `rows` rows of the batch, each of
  `length`; the numbers, integers and seeds of each of the `heads`."""

  rows: int
  length: int
  heads: int
  visits: Any
  numbers: Any
  whole: Any
  seeds: Any

  def visit(self, b: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(row, column, kind) of a visit of row b of the batch."""
    return decoded(self.visits[(0 if self.rows == 1 else b * self.length) + t])


class _Terms(NamedTuple):
  """What the programs have for functions and terms: see `Operands`."""

  tables: Sequence[Any]
  asked: Sequence[Any]
  told: Sequence[Any]


class _Turn(NamedTuple):
  """One visit: the row and column of tiles, what is seen, and whether it is the row's first and
  last.
  """

  row: jax.Array
  column: jax.Array
  kind: jax.Array
  first: jax.Array
  last: jax.Array


class _Blocks(NamedTuple):
  """Which block of an array a program reads, given its last axis or axes.

  Of queries, keys, rows of queries, keys of the head whose gradient it finds, keys of any number of
  heads, tables."""

  q: Any
  k: Any
  row: Any
  own: Any
  told: Any
  table: Any
  q_info: pl.BlockSpec
  k_info: pl.BlockSpec


def _blocks(schedule: Schedule, x: Operands, visits: Visits, heads: int | None = None) -> _Blocks:
  """The blocks of programs (b, n, visit), or with `heads` of (b, head, visit, query head of it)
  that go by keys.
  """
  (rows, length), N = visits.code.shape, x.q_BNTH.shape[1]
  G = N // heads if heads else None

  def spec(shape, find):
    def index(b, head, t, *rest):
      g, *scalars = rest if G else (0, *rest)
      row, column, _ = _Scalars(rows, length, 0, *scalars).visit(b, t)
      return find(b, head * G + g if G else head, head, *((column, row) if G else (row, column)))

    return pl.BlockSpec(shape, index)

  def of_keys(H: int, M: int) -> pl.BlockSpec:
    return spec(
      (1, 1, schedule.width, H),
      lambda b, n, own, i, j: (b, jax.lax.div(n, jnp.int32(N // M)), j, 0),
    )

  q_leaves, k_leaves = x.q_info.shape[1], x.k_info.shape[1]
  return _Blocks(
    lambda H: spec((1, 1, schedule.size, H), lambda b, n, own, i, j: (b, n, i, 0)),
    lambda H: of_keys(H, x.k_BKSH.shape[1]),
    lambda m: spec((1, 1, m, schedule.size), lambda b, n, own, i, j: (b, n, 0, i)),
    lambda H: spec((1, 1, schedule.width, H), lambda b, n, own, i, j: (b, own, j, 0)),
    of_keys,
    lambda chunks: spec((1, chunks, LANES), lambda b, n, own, i, j: (n, 0, 0)),
    spec((1, q_leaves, schedule.size), lambda b, n, own, i, j: (b, 0, i)),
    spec((1, k_leaves, schedule.width), lambda b, n, own, i, j: (b, 0, j)),
  )


def _call(
  schedule: Schedule,
  kernel,
  grid,
  x: Operands,
  visits: Visits,
  at: _Blocks,
  inputs,
  outputs,
  scratch,
) -> Any:
  """The results of `kernel`: on a TPU compiled, elsewhere interpreted.

  Inputs and outputs are pairs of an array and its block.
  """
  (rows, length), heads = visits.code.shape, x.q_BNTH.shape[1]

  inputs += [(a, at.table(a.shape[1])) for a in x.tables]
  inputs += [(a, at.q(a.shape[-1])) for a in x.asked] + [
    (a, at.told(a.shape[-1], a.shape[1])) for a in x.told
  ]
  extra = len(x.tables) + len(x.asked) + len(x.told)

  def body(visits_ref, numbers, whole, seeds, *refs):
    given, rest = _split(refs, len(inputs))
    given, of_terms = _split(given, len(given) - extra)
    tables, of_terms = _split(of_terms, len(x.tables))
    terms = _Terms(tables, *_split(of_terms, len(x.asked)))
    kernel(
      schedule,
      _Scalars(rows, length, heads, visits_ref, numbers, whole, seeds),
      terms,
      *given,
      *rest,
    )

  def run(interpret: bool, most, *args):
    spec = pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=4,
      grid=(*grid[:2], most, *grid[3:]),
      in_specs=[block for _, block in inputs],
      out_specs=[block for _, block in outputs],
      scratch_shapes=[pltpu.VMEM(a.shape, a.dtype) for a in scratch],
    )
    semantics: Any = ('parallel', 'parallel', 'arbitrary', 'arbitrary')[: len(grid)]
    params = pltpu.CompilerParams(dimension_semantics=semantics)
    shapes = [a for a, _ in outputs]
    return pl.pallas_call(
      body, shapes, grid_spec=spec, compiler_params=params, interpret=interpret
    )(*args)

  scalars = (a.reshape(-1) for a in (visits.code, x.numbers, x.whole, x.seeds))
  args = (visits.most, *scalars, *(a for a, _ in inputs))
  if schedule.interpret is not None:
    return run(schedule.interpret, *args)
  # Not the backend at hand, but that which the program is compiled for.
  compiled, interpreted = functools.partial(run, False), functools.partial(run, True)
  return jax.lax.platform_dependent(*args, tpu=compiled, default=interpreted)


def _shape(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)


def _ids(n: int) -> tuple[jax.Array, ...]:
  return tuple(pl.program_id(i) for i in range(n))


def _turn(scalars: _Scalars, b: jax.Array, t: jax.Array) -> _Turn:
  count = pl.num_programs(2)
  row, column, kind = scalars.visit(b, t)
  before, after = (scalars.visit(b, jnp.clip(t + d, 0, count - 1))[0] for d in (-1, 1))
  return _Turn(row, column, kind, (t == 0) | (before != row), (t == count - 1) | (after != row))


def _either(turn: _Turn, visit) -> None:
  """Runs `visit(masked)` if something of the tile is seen, unmasked if all is."""
  for kind in (1, 2):
    pl.when(turn.kind == kind)(functools.partial(visit, kind == 1))


def _where(
  schedule: Schedule, scalars: _Scalars, terms: _Terms, turn: _Turn, q, k, b, n, own: str = 'q'
) -> Where:
  """The tile for head n of row b; q and k are its infos, that of the kernel's `own` in columns, the
  other's in rows.
  """
  rules = schedule.rules
  i, j = (turn.row, turn.column) if own == 'q' else (turn.column, turn.row)
  as_they_lie = (_columns(q), _rows(k[0])) if own == 'q' else (_rows(q[0]), _columns(k))
  (q_leaves, query), (k_leaves, key) = _infos(schedule, *as_they_lie, i, j)

  def turned() -> tuple[list[jax.Array], list[jax.Array]]:
    other_way = (
      (_rows(q[...].T), _columns(k[0].T)) if own == 'q' else (_columns(q[0].T), _rows(k[...].T))
    )
    (q_leaves, _), (k_leaves, _) = _infos(schedule, *other_way, i, j)
    return q_leaves, k_leaves

  seed = scalars.seeds[0 if rules.drop is None else b * scalars.heads + n]
  return Where(
    q_leaves, k_leaves, turned, query, key, scalars.numbers, n * rules.floats, scalars.whole,
    n * rules.ints, seed, own,
    *terms,
  )  # fmt: skip


def _infos(schedule: Schedule, q: list[jax.Array], k: list[jax.Array], i, j) -> tuple[Any, Any]:
  return _placed(q, schedule.q_dtypes, i * schedule.size), _placed(
    k, schedule.k_dtypes, j * schedule.width
  )


def _rows(info: Any) -> list[jax.Array]:
  return [info[f : f + 1] for f in range(info.shape[0])]


def _columns(column: Any) -> list[jax.Array]:
  return [column[:, f : f + 1] for f in range(column.shape[1])]


def _placed(
  leaves: list[jax.Array], dtypes: tuple[Any, ...], first: jax.Array
) -> tuple[list[jax.Array], jax.Array]:
  """(the leaves of a tile's info, the places of its tokens in the row): told by one more leaf, or
  from `first` on.
  """
  typed = [x != 0 if dtype == jnp.bool_ else x for x, dtype in zip(leaves, dtypes, strict=False)]
  shape = leaves[0].shape
  along = lambda: first + jax.lax.broadcasted_iota(jnp.int32, shape, shape.index(max(shape)))
  return typed, leaves[-1] if len(leaves) > len(dtypes) else along()


def _sums(schedule: Schedule, own: str, i: int, tokens: int, wide: int) -> jax.ShapeDtypeStruct:
  """Where the gradient of what a term has of `own` tokens is summed: of look-ups entry by entry."""
  return _shape(
    (tokens, wide)
    if schedule.rules.multiplied(own, i)
    else (-(-tokens // LANES), wide, min(tokens, LANES))
  )


def _found(d, sums) -> None:
  """Writes such sums as the gradient `[1, 1, tokens, wide]`."""
  if len(sums.shape) == 2:
    d[0, 0] = sums[...].astype(d.dtype)
    return
  for i in range(sums.shape[0]):
    d[0, 0, i * LANES : i * LANES + sums.shape[2]] = sums[i].T.astype(d.dtype)


def _split(refs: Sequence[Any], n: int) -> tuple[Sequence[Any], Sequence[Any]]:
  return refs[:n], refs[n:]
