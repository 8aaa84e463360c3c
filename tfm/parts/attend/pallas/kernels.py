"""The three kernels: forward, the gradient of queries, the gradients of keys and values."""

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from tfm.parts.attend.pallas.launch import (
  as_shape,
  block_specs,
  current_visit,
  launch,
  program_ids,
  tile_inputs,
  visit_tile,
)
from tfm.parts.attend.pallas.lookup import LANES, dot
from tfm.parts.attend.pallas.schedule import Operands, Schedule
from tfm.parts.attend.pallas.visits import Visits

_LOW = float(jnp.finfo(jnp.float32).min)


def forward(schedule: Schedule, x: Operands, visits: Visits) -> tuple[jax.Array, jax.Array]:
  """Return the output and the log-sum-exp of each query.

  Args:
    schedule: the static options.
    x: the arrays.
    visits: the tiles to compute, by rows of queries.

  Returns:
    y `[B, N, T, Hv]` in the dtype of the values, and lse `[B, N, 1, T]` in float32.
  """
  B, N, T, H = x.q_BNTH.shape
  Hv, size, at = x.v_BKSH.shape[-1], schedule.size, block_specs(schedule, x, visits)
  inputs = [(x.q_BNTH, at.q(H)), (x.k_BKSH, at.k(H)), (x.v_BKSH, at.k(Hv))]
  inputs += [(x.q_info, at.q_info), (x.k_info, at.k_info)]
  y, lse = as_shape((B, N, T, Hv), x.v_BKSH.dtype), as_shape((B, N, 1, T))
  outputs = [(y, at.q(Hv)), (lse, at.q_row(1))]
  scratch = [as_shape((size, 1)), as_shape((size, 1)), as_shape((size, Hv))]
  scratch += [as_shape((size, x.q_info.shape[1]), jnp.int32)]
  grid = (B, N, visits.longest)
  return launch(schedule, _forward, grid, x, visits, at, inputs, outputs, scratch)


def _forward(
  schedule, scalars, terms, q, k, v, q_info, k_info, y, lse, top, total, mixed, q_column
):
  scores, (b, n, t) = schedule.scores, program_ids(3)
  visit = current_visit(scalars, b, t)

  @pl.when(visit.first)
  def _():
    # If all keys are masked out, half of the lowest float as maximum gives exponentials of 0.
    start = scalars.floats[n * scores.n_floats] if scores.sink else jnp.float32(_LOW / 2)
    top[...] = jnp.full(top.shape, start, jnp.float32)
    total[...] = jnp.full(total.shape, 1.0 if scores.sink else 0.0, jnp.float32)
    mixed[...] = jnp.zeros(mixed.shape, jnp.float32)
    q_column[...] = q_info[0].T

  def tile(masked: bool):
    at = tile_inputs(schedule, scalars, terms, visit, q_column, k_info, b, n)
    s, _ = scores.compute(dot(q[0, 0], k[0, 0], 1, 1), at)
    if masked:
      s = jnp.where(scores.allowed(at, s.shape), s, _LOW)
    highest = jnp.maximum(top[...], s.max(1, keepdims=True))
    e, shrink = jnp.exp(s - highest), jnp.exp(top[...] - highest)
    top[...] = highest
    total[...] = total[...] * shrink + e.sum(1, keepdims=True)
    factor = scores.dropout_factor(at)
    e = (e if factor is None else e * factor).astype(v.dtype)
    mixed[...] = mixed[...] * shrink + dot(e, v[0, 0], 1, 0)

  visit_tile(visit, tile)

  @pl.when(visit.last)
  def _():
    positive = jnp.where(total[...] > 0, total[...], 1.0)
    y[0, 0] = (mixed[...] / positive).astype(y.dtype)
    lse_column = jnp.broadcast_to(top[...] + jnp.log(positive), (schedule.size, LANES))
    lse[0, 0] = lse_column.T[:1]


def backward_queries(
  schedule: Schedule, x: Operands, visits: Visits, g_BNTH: jax.Array, stats: jax.Array
) -> list[jax.Array]:
  """Return the gradients that are sums over keys.

  Args:
    schedule: the static options.
    x: the arrays.
    visits: the tiles to compute, by rows of queries.
    g_BNTH: the gradient of the output.
    stats: lse and sum g y, `[B, N, 2, T]`.

  Returns:
    dq, the gradient of the floats `[B, N, 1, floats]`, of each learned table
    `[B, N, chunks, 128]`, and of each of `q_terms`.
  """
  B, N, _, H = x.q_BNTH.shape
  at, size, n_floats = block_specs(schedule, x, visits), schedule.size, schedule.scores.n_floats
  learned = [x.tables[i].shape[1:] for i in schedule.scores.learned_tables(x.tables)]
  per_head = lambda *shape: pl.BlockSpec((1, 1, *shape), lambda b, n, t, *_: (b, n, 0, 0))
  outputs = [(as_shape(x.q_BNTH.shape, x.q_BNTH.dtype), at.q(H))]
  outputs += [(as_shape((B, N, 1, n_floats)), per_head(1, n_floats))]
  outputs += [(as_shape((B, N, *shape)), per_head(*shape)) for shape in learned]
  outputs += [(as_shape(a.shape, a.dtype), at.q(a.shape[-1])) for a in x.q_terms]
  scratch = [as_shape((size, H)), as_shape((size, 2))]
  scratch += [as_shape((size, x.q_info.shape[1]), jnp.int32)]
  scratch += [as_shape((1, chunks * LANES, LANES)) for chunks, _ in learned]
  scratch += [_term_sums(schedule, 'q', i, size, a.shape[-1]) for i, a in enumerate(x.q_terms)]
  inputs, grid = _backward_inputs(x, at, g_BNTH, stats), (B, N, visits.longest)
  schedule = schedule._replace(products=3)
  return launch(schedule, _backward_queries, grid, x, visits, at, inputs, outputs, scratch)


def _backward_queries(
  schedule, scalars, terms, q, k, v, g, stats, q_info, k_info, dq, d_floats, *rest
):
  scores, (b, n, t) = schedule.scores, program_ids(3)
  visit, learned = current_visit(scalars, b, t), scores.learned_tables(terms.tables)
  n_tables, n_terms = len(learned), len(terms.q_terms)
  d_tables, d_terms = rest[:n_tables], rest[n_tables : n_tables + n_terms]
  sums, stat, q_column, *more_sums = rest[n_tables + n_terms :]
  table_sums, term_sums = more_sums[:n_tables], more_sums[n_tables:]

  @pl.when(t == 0)
  def _():
    _clear(d_floats, *table_sums)

  @pl.when(visit.first)
  def _():
    _clear(sums, *term_sums)
    stat[...] = stats[0, 0].T
    q_column[...] = q_info[0].T

  def tile(masked: bool):
    at = tile_inputs(schedule, scalars, terms, visit, q_column, k_info, b, n)
    s, capped = scores.compute(dot(q[0, 0], k[0, 0], 1, 1), at)
    p = jnp.exp(s - stat[:, :1])
    if masked:
      p = jnp.where(scores.allowed(at, s.shape), p, 0.0)
    dp, factor = dot(g[0, 0], v[0, 0], 1, 1), scores.dropout_factor(at)
    ds = p * ((dp if factor is None else dp * factor) - stat[:, 1:])
    if scores.bias is not None:
      d_floats[0, 0] += scores.bias_gradient(ds, at, dict(zip(learned, table_sums, strict=True)))
    d_product = scores.uncapped_gradient(ds, capped)
    scores.add_term_gradients(ds, d_product, at, dict(enumerate(term_sums)))
    sums[...] += dot(d_product.astype(k.dtype), k[0, 0], 1, 0)

  visit_tile(visit, tile)

  @pl.when(visit.last)
  def _():
    dq[0, 0] = sums[...].astype(dq.dtype)
    for d, of in zip(d_terms, term_sums, strict=True):
      _write_term_gradient(d, of)

  @pl.when(t == pl.num_programs(2) - 1)
  def _():
    for d, of in zip(d_tables, table_sums, strict=True):
      for c in range(d.shape[2]):
        d[0, 0, c : c + 1] = of[0, c * LANES : (c + 1) * LANES].T.sum(0, keepdims=True)


def backward_keys(
  schedule: Schedule, x: Operands, visits: Visits, g_BNTH: jax.Array, stats: jax.Array
) -> list[jax.Array]:
  """Return the gradients that are sums over queries.

  All tiles of this kernel are transposed, keys by queries.

  Args:
    schedule: the static options.
    x: the arrays.
    visits: the tiles to compute, by rows of keys, for all query heads of a key head.
    g_BNTH: the gradient of the output.
    stats: lse and sum g y, `[B, N, 2, T]`.

  Returns:
    dk, dv and the gradient of each of `k_terms` that needs one, `[B, heads, S, size]` each. `heads`
    is that of `Operands.gradient_heads`.
  """
  learned = [i for i in range(len(x.k_terms)) if i not in schedule.constant]
  (B, _, S, H), Hv = x.k_BKSH.shape, x.v_BKSH.shape[-1]
  heads, width = x.gradient_heads(learned), schedule.width
  at = block_specs(schedule, x, visits, heads)
  outputs = []
  for a in (x.k_BKSH, x.v_BKSH, *(x.k_terms[i] for i in learned)):
    # Gradients that are later summed over heads are float32.
    dtype = a.dtype if a.shape[1] == heads else jnp.float32
    outputs.append((as_shape((B, heads, S, a.shape[-1]), dtype), at.k_gradient(a.shape[-1])))
  scratch = [as_shape((width, H)), as_shape((width, Hv))]
  scratch += [as_shape((width, x.k_info.shape[1]), jnp.int32)]
  scratch += [_term_sums(schedule, 'k', i, width, x.k_terms[i].shape[-1]) for i in learned]
  inputs = _backward_inputs(x, at, g_BNTH, stats)
  grid = (B, heads, visits.longest, x.q_BNTH.shape[1] // heads)
  schedule = schedule._replace(products=4)
  return launch(schedule, _backward_keys, grid, x, visits, at, inputs, outputs, scratch)


def _backward_keys(schedule, scalars, terms, q, k, v, g, stats, q_info, k_info, dk, dv, *rest):
  scores, (b, head, t, i), G = schedule.scores, program_ids(4), pl.num_programs(3)
  learned = [i for i in range(len(terms.k_terms)) if i not in schedule.constant]
  d_terms, (sums_k, sums_v, k_column, *term_sums) = rest[: len(learned)], rest[len(learned) :]
  visit = current_visit(scalars, b, t)

  @pl.when(visit.first & (i == 0))
  def _():
    _clear(sums_k, sums_v, *term_sums)
    k_column[...] = k_info[0].T

  def tile(masked: bool):
    at = tile_inputs(schedule, scalars, terms, visit, q_info, k_column, b, head * G + i, 'k')
    s, capped = scores.compute(dot(k[0, 0], q[0, 0], 1, 1), at)
    p = jnp.exp(s - stats[0, 0, :1])
    if masked:
      p = jnp.where(scores.allowed(at, s.shape), p, 0.0)
    dp, factor = dot(v[0, 0], g[0, 0], 1, 1), scores.dropout_factor(at)
    dropped, dp = (p, dp) if factor is None else (p * factor, dp * factor)
    sums_v[...] += dot(dropped.astype(g.dtype), g[0, 0], 1, 0)
    ds = p * (dp - stats[0, 0, 1:])
    d_product = scores.uncapped_gradient(ds, capped)
    scores.add_term_gradients(ds, d_product, at, dict(zip(learned, term_sums, strict=True)))
    sums_k[...] += dot(d_product.astype(q.dtype), q[0, 0], 1, 0)

  visit_tile(visit, tile)

  @pl.when(visit.last & (i == G - 1))
  def _():
    dk[0, 0] = sums_k[...].astype(dk.dtype)
    dv[0, 0] = sums_v[...].astype(dv.dtype)
    for d, of in zip(d_terms, term_sums, strict=True):
      _write_term_gradient(d, of)


def _backward_inputs(x: Operands, at, g_BNTH: jax.Array, stats: jax.Array) -> list:
  """Return the inputs of a backward kernel and their blocks."""
  H, Hv = x.k_BKSH.shape[-1], x.v_BKSH.shape[-1]
  inputs = [(x.q_BNTH, at.q(H)), (x.k_BKSH, at.k(H)), (x.v_BKSH, at.k(Hv))]
  inputs += [(g_BNTH, at.q(Hv)), (stats, at.q_row(2))]
  return [*inputs, (x.q_info, at.q_info), (x.k_info, at.k_info)]


def _clear(*refs) -> None:
  for ref in refs:
    ref[...] = jnp.zeros(ref.shape, jnp.float32)


def _term_sums(
  schedule: Schedule, side: str, i: int, tokens: int, size: int
) -> jax.ShapeDtypeStruct:
  """Return the scratch array for the gradient of term vectors, entry by entry for lookups."""
  if schedule.scores.is_factor(side, i):
    return as_shape((tokens, size))
  return as_shape((-(-tokens // LANES), size, min(tokens, LANES)))


def _write_term_gradient(d, sums) -> None:
  """Write the sums of `_term_sums` as the gradient `[1, 1, tokens, size]`."""
  if len(sums.shape) == 2:
    d[0, 0] = sums[...].astype(d.dtype)
    return
  for i in range(sums.shape[0]):
    d[0, 0, i * LANES : i * LANES + sums.shape[2]] = sums[i].T.astype(d.dtype)
