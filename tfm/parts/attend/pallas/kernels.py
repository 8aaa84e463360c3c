"""The kernels: forward, the gradient of the queries, the gradients of keys and values (arXiv:2307.08691)."""

import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from tfm.parts.attend.pallas.plan import Operands, Plan
from tfm.parts.attend.pallas.rules import Where
from tfm.parts.attend.pallas.visits import Visits, decoded

_LOW = float(jnp.finfo(jnp.float32).min)
_LANES = 128


def forward(plan: Plan, x: Operands, visits: Visits) -> tuple[jax.Array, jax.Array]:
  """(y `[B, N, T, Hv]`, the logarithm of each query's sum of exponentials `[B, N, 1, T]`)."""
  B, N, T, H = x.q_BNTH.shape
  Hv, size, at = x.v_BKSH.shape[-1], plan.size, _blocks(plan, x, visits)
  return _call(
    plan, _forward, (B, N, visits.most), x, visits,
    [(x.q_BNTH, at.q(H)), (x.k_BKSH, at.k(H)), (x.v_BKSH, at.k(Hv)), (x.q_site, at.q_site), (x.k_site, at.k_site)],
    [(_shape((B, N, T, Hv), x.v_BKSH.dtype), at.q(Hv)), (_shape((B, N, 1, T)), at.row(1))],
    [_shape((size, 1)), _shape((size, 1)), _shape((size, Hv)), _shape((size, x.q_site.shape[1]), jnp.int32)],
  )  # fmt: skip


def _forward(plan, scalars, q, k, v, q_site, k_site, y, lse, top, total, mixed, q_column):
  rules, (b, n, t) = plan.rules, _ids(3)
  turn = _turn(scalars, b, t)

  @pl.when(turn.first)
  def _():
    # A row that sees nobody has no largest: against half of the lowest all its exponentials are 0.
    start = scalars.numbers[n * rules.floats] if rules.sink else jnp.float32(_LOW / 2)
    top[...] = jnp.full(top.shape, start, jnp.float32)
    total[...] = jnp.full(total.shape, 1.0 if rules.sink else 0.0, jnp.float32)
    mixed[...] = jnp.zeros(mixed.shape, jnp.float32)
    q_column[...] = q_site[0].T

  def visit(masked: bool):
    at = _where(plan, scalars, turn.row, turn.column, _columns(q_column), _rows(k_site), b, n)
    s, _ = rules.found(_dot(q[0, 0], k[0, 0], 1, 1), at)
    if masked:
      s = jnp.where(rules.allowed(at, s.shape), s, _LOW)
    highest = jnp.maximum(top[...], s.max(1, keepdims=True))
    e, shrink = jnp.exp(s - highest), jnp.exp(top[...] - highest)
    top[...] = highest
    total[...] = total[...] * shrink + e.sum(1, keepdims=True)
    kept = rules.kept(at)
    e = (e if kept is None else e * kept).astype(v.dtype)
    mixed[...] = mixed[...] * shrink + _dot(e, v[0, 0], 1, 0)

  _either(turn, visit)

  @pl.when(turn.last)
  def _():
    sure = jnp.where(total[...] > 0, total[...], 1.0)
    y[0, 0] = (mixed[...] / sure).astype(y.dtype)
    lse[0, 0] = jnp.broadcast_to(top[...] + jnp.log(sure), (plan.size, _LANES)).T[:1]


def backward_queries(plan: Plan, x: Operands, visits: Visits, g_BNTH: jax.Array, stats: jax.Array) -> list[jax.Array]:
  """[dq, the gradient of the numbers `[B, N, 1, floats]`]; `stats` `[B, N, 2, T]` are lse and sum g y."""
  B, N, T, H = x.q_BNTH.shape
  Hv, size, floats, at = x.v_BKSH.shape[-1], plan.size, plan.rules.floats, _blocks(plan, x, visits)
  a_head = pl.BlockSpec((1, 1, 1, floats), lambda b, n, t, *_: (b, n, 0, 0))
  return _call(
    plan, _backward_queries, (B, N, visits.most), x, visits,
    [(x.q_BNTH, at.q(H)), (x.k_BKSH, at.k(H)), (x.v_BKSH, at.k(Hv)), (g_BNTH, at.q(Hv)), (stats, at.row(2)),
     (x.q_site, at.q_site), (x.k_site, at.k_site)],
    [(_shape((B, N, T, H), x.q_BNTH.dtype), at.q(H)), (_shape((B, N, 1, floats)), a_head)],
    [_shape((size, H)), _shape((size, 2)), _shape((size, x.q_site.shape[1]), jnp.int32)],
  )  # fmt: skip


def _backward_queries(plan, scalars, q, k, v, g, stats, q_site, k_site, dq, d_numbers, sums, stat, q_column):
  rules, (b, n, t) = plan.rules, _ids(3)
  turn = _turn(scalars, b, t)

  @pl.when(t == 0)
  def _():
    d_numbers[...] = jnp.zeros(d_numbers.shape, jnp.float32)

  @pl.when(turn.first)
  def _():
    sums[...] = jnp.zeros(sums.shape, jnp.float32)
    stat[...] = stats[0, 0].T
    q_column[...] = q_site[0].T

  def visit(masked: bool):
    at = _where(plan, scalars, turn.row, turn.column, _columns(q_column), _rows(k_site), b, n)
    s, capped = rules.found(_dot(q[0, 0], k[0, 0], 1, 1), at)
    p = jnp.exp(s - stat[:, :1])
    if masked:
      p = jnp.where(rules.allowed(at, s.shape), p, 0.0)
    dp, kept = _dot(g[0, 0], v[0, 0], 1, 1), rules.kept(at)
    ds = p * ((dp if kept is None else dp * kept) - stat[:, 1:])
    if rules.bias is not None:
      d_numbers[0, 0] += rules.numbers_of(ds, at)
    sums[...] += _dot(rules.uncapped(ds, capped).astype(k.dtype), k[0, 0], 1, 0)

  _either(turn, visit)

  @pl.when(turn.last)
  def _():
    dq[0, 0] = sums[...].astype(dq.dtype)


def backward_keys(plan: Plan, x: Operands, visits: Visits, g_BNTH: jax.Array, stats: jax.Array) -> list[jax.Array]:
  """[dk, dv]; `visits` go by tiles of keys, and within one by tiles of queries, for all query heads of a kv head."""
  (B, K, S, H), G = x.k_BKSH.shape, x.q_BNTH.shape[1] // x.k_BKSH.shape[1]
  Hv, width, at = x.v_BKSH.shape[-1], plan.width, _blocks(plan, x, visits, G)
  return _call(
    plan, _backward_keys, (B, K, visits.most, G), x, visits,
    [(x.q_BNTH, at.q(H)), (x.k_BKSH, at.k(H)), (x.v_BKSH, at.k(Hv)), (g_BNTH, at.q(Hv)), (stats, at.row(2)),
     (x.q_site, at.q_site), (x.k_site, at.k_site)],
    [(_shape((B, K, S, H), x.k_BKSH.dtype), at.k(H)), (_shape((B, K, S, Hv), x.v_BKSH.dtype), at.k(Hv))],
    [_shape((width, H)), _shape((width, Hv)), _shape((width, x.k_site.shape[1]), jnp.int32)],
  )  # fmt: skip


def _backward_keys(plan, scalars, q, k, v, g, stats, q_site, k_site, dk, dv, sums_k, sums_v, k_column):
  rules, (b, kv, t, i), G = plan.rules, _ids(4), pl.num_programs(3)
  turn = _turn(scalars, b, t)

  @pl.when(turn.first & (i == 0))
  def _():
    sums_k[...] = jnp.zeros(sums_k.shape, jnp.float32)
    sums_v[...] = jnp.zeros(sums_v.shape, jnp.float32)
    k_column[...] = k_site[0].T

  def visit(masked: bool):
    # All tiles lie keys by queries here: what belongs to a query is a row.
    at = _where(plan, scalars, turn.column, turn.row, _rows(q_site), _columns(k_column), b, kv * G + i)
    s, capped = rules.found(_dot(k[0, 0], q[0, 0], 1, 1), at)
    p = jnp.exp(s - stats[0, 0, :1])
    if masked:
      p = jnp.where(rules.allowed(at, s.shape), p, 0.0)
    dp, kept = _dot(v[0, 0], g[0, 0], 1, 1), rules.kept(at)
    given_p, dp = (p, dp) if kept is None else (p * kept, dp * kept)
    sums_v[...] += _dot(given_p.astype(g.dtype), g[0, 0], 1, 0)
    ds = rules.uncapped(p * (dp - stats[0, 0, 1:]), capped)
    sums_k[...] += _dot(ds.astype(q.dtype), q[0, 0], 1, 0)

  _either(turn, visit)

  @pl.when(turn.last & (i == G - 1))
  def _():
    dk[0, 0] = sums_k[...].astype(dk.dtype)
    dv[0, 0] = sums_v[...].astype(dv.dtype)


class _Scalars(NamedTuple):
  """What the programs have in scalar memory, flat: the visits of `rows` rows of the batch, each of `length`; the
  numbers, integers and seeds of each of the `heads`."""

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


class _Turn(NamedTuple):
  """One visit: the row and column of tiles, what is seen, and whether it is the row's first and last."""

  row: jax.Array
  column: jax.Array
  kind: jax.Array
  first: jax.Array
  last: jax.Array


class _Blocks(NamedTuple):
  """Which block of an array a program reads, given its last axis or axes: of queries, keys, and rows of queries."""

  q: Any
  k: Any
  row: Any
  q_site: pl.BlockSpec
  k_site: pl.BlockSpec


def _blocks(plan: Plan, x: Operands, visits: Visits, G: int | None = None) -> _Blocks:
  """The blocks of programs (b, n, visit), or with G of (b, kv head, visit, query head of it) that go by keys."""
  (rows, length), share = visits.code.shape, x.q_BNTH.shape[1] // x.k_BKSH.shape[1]

  def spec(shape, find):
    def index(b, head, t, *rest):
      g, *scalars = rest if G else (0, *rest)
      row, column, _ = _Scalars(rows, length, 0, *scalars).visit(b, t)
      n, kv = (head * G + g, head) if G else (head, jax.lax.div(head, jnp.int32(share)))
      return find(b, n, kv, *((column, row) if G else (row, column)))

    return pl.BlockSpec(shape, index)

  q_leaves, k_leaves = x.q_site.shape[1], x.k_site.shape[1]
  return _Blocks(
    lambda H: spec((1, 1, plan.size, H), lambda b, n, kv, i, j: (b, n, i, 0)),
    lambda H: spec((1, 1, plan.width, H), lambda b, n, kv, i, j: (b, kv, j, 0)),
    lambda m: spec((1, 1, m, plan.size), lambda b, n, kv, i, j: (b, n, 0, i)),
    spec((1, q_leaves, plan.size), lambda b, n, kv, i, j: (b, 0, i)),
    spec((1, k_leaves, plan.width), lambda b, n, kv, i, j: (b, 0, j)),
  )


def _call(plan: Plan, kernel, grid, x: Operands, visits: Visits, inputs, outputs, scratch) -> Any:
  """The results of `kernel`: on a TPU compiled, elsewhere interpreted.

  Inputs and outputs are pairs of an array and its block.
  """
  (rows, length), heads = visits.code.shape, x.q_BNTH.shape[1]

  def body(visits_ref, numbers, whole, seeds, *refs):
    kernel(plan, _Scalars(rows, length, heads, visits_ref, numbers, whole, seeds), *refs)

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
    return pl.pallas_call(body, shapes, grid_spec=spec, compiler_params=params, interpret=interpret)(*args)

  scalars = (a.reshape(-1) for a in (visits.code, x.numbers, x.whole, x.seeds))
  args = (visits.most, *scalars, *(a for a, _ in inputs))
  if plan.interpret is not None:
    return run(plan.interpret, *args)
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


def _where(plan: Plan, scalars: _Scalars, i, j, q: list[jax.Array], k: list[jax.Array], b, n) -> Where:
  """The tile of queries i and keys j for head n of row b; the leaves of its sites are columns or rows."""
  rules = plan.rules
  q, query = _placed(q, plan.q_dtypes, i * plan.size)
  k, key = _placed(k, plan.k_dtypes, j * plan.width)
  seed = scalars.seeds[0 if rules.drop is None else b * scalars.heads + n]
  return Where(q, k, query, key, scalars.numbers, n * rules.floats, scalars.whole, n * rules.ints, seed)


def _rows(site: Any) -> list[jax.Array]:
  return [site[0, f : f + 1] for f in range(site.shape[1])]


def _columns(column: Any) -> list[jax.Array]:
  return [column[:, f : f + 1] for f in range(column.shape[1])]


def _placed(leaves: list[jax.Array], dtypes: tuple[Any, ...], first: jax.Array) -> tuple[list[jax.Array], jax.Array]:
  """(the leaves of a tile's site, the places of its tokens in the row): told by one more leaf, or from `first` on."""
  typed = [x != 0 if dtype == jnp.bool_ else x for x, dtype in zip(leaves, dtypes, strict=False)]
  shape = leaves[0].shape
  along = lambda: first + jax.lax.broadcasted_iota(jnp.int32, shape, shape.index(max(shape)))
  return typed, leaves[-1] if len(leaves) > len(dtypes) else along()


def _dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
  return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)
