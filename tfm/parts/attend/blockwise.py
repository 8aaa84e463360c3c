"""Attention tile by tile: memory by the length, time by the pairs in sight (arXiv:2205.14135,
arXiv:2307.08691).
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core.closures import convert
from tfm.parts.attend.added import read
from tfm.parts.attend.base import Attend, Scores, few
from tfm.parts.attend.dense import dot, products, turned
from tfm.parts.attend.views import joined, worth
from tfm.parts.term import totals
from tfm.parts.tokeninfo import TokenInfo

Pytree = Any


@dataclasses.dataclass(frozen=True)
class Blockwise(Attend):
  """softmax(q k) v over tiles of `queries` x `keys`, keeping a running largest score and sum for
  each query.

  Tiles in which nobody sees anybody, in any row of the batch, are not computed, neither forward nor
  backward: causal attention costs half, a window its band, packed documents their squares. Long
  rows are put in the orders that the mask knows (`Mask.views`), so that strided, fixed and dilated
  ones cost about their pairs too; rows of few tiles stay.

  *Cost*: 4 N H FLOPs a pair in a tile that is computed, 10 N H backward (scores are found again); B
  N (T H + queries keys) numbers, T H of them for each view of the mask."""

  queries: int = 256
  keys: int = 256

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1:
      yield f'queries={self.queries}, keys={self.keys} is no size of a tile. Expected at least 1 of each.'

  def loses(self, platform, B, N, T, S):
    if few(platform, B, N, T, S):
      return f'{B * N * T * S:,} scores are few enough to be kept.'
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    views = worth(scores.mask, q_BTNH.shape[1] / self.queries)
    return joined(self._summed, views, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)

  def _summed(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    """y_BTNH of one view, and lse_BTN."""
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    size, width = min(self.queries, -(-T // 8) * 8), min(self.keys, -(-S // 8) * 8)
    asking, seen = _tiles(q, size), _tiles(k, width)
    tile = (jax.tree.map(lambda a: a[0], asking), jax.tree.map(lambda a: a[0], seen))
    of_bias, bias = _lifted(scores.offsets, *tile)
    heads = jnp.zeros((B, size, N, H), q_BTNH.dtype), jnp.zeros((B, width, K, H), k_BSKH.dtype)
    of_content, content = _lifted(tuple(map(totals, scores.contents)), *heads, *tile)
    consts = (of_bias, of_content)
    problem = _Problem(scores, bias, content, S, K, jnp.dtype(reduce))
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    operands = _Operands(
      jnp.moveaxis(_tiles(q_BTKGH, size), 2, 4),
      jnp.moveaxis(_tiles(k_BSKH, width), 2, 3),
      jnp.moveaxis(_tiles(v_BSKH, width), 2, 3),
      consts,
      None if scores.sink_N is None else scores.sink_N.astype(reduce).reshape(1, K, N // K, 1, 1),
      tuple(added.table_UH for added in scores.added),
    )
    found = _flash(problem)(operands, asking, seen, scores.drop)
    y_BTNH, lse_BTNH = (
      jnp.moveaxis(a, (0, 4), (1, 2)).reshape(B, -1, N, a.shape[-1])[:, :T] for a in found
    )
    return y_BTNH, lse_BTNH[..., 0]


class _Operands(NamedTuple):
  """What has gradients: q `[tiles, B, K, G, queries, H]`, k and v `[tiles, B, K, keys, H]`, and
  what the scores own.

  `tables` are those of `Scores.added`.
  """

  q: jax.Array
  k: jax.Array
  v: jax.Array
  consts: tuple[list[jax.Array], list[jax.Array]]
  sink: jax.Array | None
  tables: tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class _Problem:
  """What stays the same from tile to tile: the rules of the scores, S, K and the dtype of the
  softmax.
  """

  scores: Scores
  bias: Callable[..., jax.Array] | None
  content: Callable[..., jax.Array] | None
  S: int
  K: int
  reduce: Any

  def found(self, q, k, consts, asking: TokenInfo, seen: TokenInfo) -> jax.Array:
    """The scores of a tile, `[B, K, G, queries, keys]`."""
    B, K, G, size, H = q.shape
    scaled = (q * jnp.asarray(self.scores.scale, q.dtype)).reshape(B, K, G * size, H)
    s = products(scaled, k, self.reduce.name).reshape(B, K, G, size, -1)
    if self.content is not None:
      q_BTNH = jnp.moveaxis(q, 3, 1).reshape(B, size, -1, H)
      more = self.content(consts[1], q_BTNH, jnp.moveaxis(k, 1, 2), asking, seen)
      s = s + self.scores.scale * more.astype(self.reduce).reshape(s.shape)
    if self.scores.cap is not None:
      s = self.scores.cap * jnp.tanh(s / self.scores.cap)
    if self.bias is not None:
      bias_BNTS = self.bias(consts[0], asking, seen).astype(self.reduce)
      s = s + bias_BNTS.reshape(bias_BNTS.shape[0], K, G, size, -1)
    return s

  def allowed(self, asking: TokenInfo, seen: TokenInfo, column: jax.Array) -> jax.Array:
    """Where looking is allowed, `[B, queries, keys]`; keys from `column` on, those after the last
    are padding.
    """
    real = (column + jnp.arange(seen.positions.shape[1]) < self.S)[None, None]
    return self.scores.mask(asking.rows(), seen.columns()) & real

  def kept(self, drop, i, j, shape) -> jax.Array | None:
    """What dropout multiplies the probabilities of tile (i, j) by, in `shape`."""
    if drop is None:
      return None
    size, width = shape[-2:]
    return (
      drop(i * size + jnp.arange(size), j * width + jnp.arange(width))
      .reshape(shape)
      .astype(self.reduce)
    )

  def rows(self, asking: TokenInfo, seen: TokenInfo) -> list[jax.Array]:
    """The rows of each table of what is added to values, `[B or 1, queries, keys]`."""
    return [added.rows(asking, seen) for added in self.scores.added]

  def visits(self, asking: TokenInfo, seen: TokenInfo) -> tuple[jax.Array, jax.Array]:
    """For each tile of queries, the tiles of keys with those first of which something is seen, and
    their number.
    """
    tiles, _, width = seen.positions.shape
    whole = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1), seen)

    def sees(asking_i: TokenInfo) -> jax.Array:
      ok = self.allowed(asking_i, whole, jnp.int32(0))
      return ok.reshape(*ok.shape[:2], tiles, width).any((0, 1, 3))

    some = jax.lax.map(sees, asking)
    return jnp.argsort(~some, axis=1, stable=True), some.sum(1)


def _flash(problem: _Problem) -> Callable[..., jax.Array]:
  """(operands, infos of queries, infos of keys, dropout) -> (y `[tiles, B, K, G, queries, H]`, lse
  `[..., 1]`).

  *Why its own VJP*: autodiff of the loop would keep every tile's scores.
  """

  @jax.custom_vjp
  def flash(operands, asking, seen, drop):
    return _forward(problem, operands, asking, seen, drop)[:2]

  def forward(operands, asking, seen, drop):
    y, lse, visits = _forward(problem, operands, asking, seen, drop)
    return (y, lse), (operands, asking, seen, drop, y, lse, visits)

  def backward(residuals, g):
    operands, asking, seen, drop, *found = residuals
    return _backward(problem, operands, asking, seen, drop, found, g), None, None, None

  flash.defvjp(forward, backward)
  return flash


def _forward(
  problem: _Problem, x: _Operands, asking: TokenInfo, seen: TokenInfo, drop
) -> tuple[jax.Array, jax.Array, Any]:
  """(y, the logarithm of each query's sum of exponentials, the visits)."""
  order, count = visits = problem.visits(asking, seen)
  low = jnp.finfo(problem.reduce).min

  def rows(given):
    i, q, asking_i, order_i, count_i = given
    B, K, G, size, _ = q.shape
    shape = (B, K, G, size, 1)
    # A row that sees nobody has no largest: against half of the lowest all its exponentials are 0.
    top = (
      jnp.full(shape, low / 2, problem.reduce)
      if x.sink is None
      else jnp.broadcast_to(x.sink, shape)
    )
    total = jnp.zeros(shape, problem.reduce) if x.sink is None else jnp.ones(shape, problem.reduce)

    def visit(n, state):
      top, total, y = state
      j = order_i[n]
      seen_j = jax.tree.map(lambda a: a[j], seen)
      s = problem.found(q, x.k[j], x.consts, asking_i, seen_j)
      ok = problem.allowed(asking_i, seen_j, j * s.shape[-1])[:, None, None]
      s = jnp.where(ok, s, low)
      highest = jnp.maximum(top, s.max(-1, keepdims=True))
      e, shrink = jnp.exp(s - highest), jnp.exp(top - highest)
      total = total * shrink + e.sum(-1, keepdims=True)
      kept = problem.kept(drop, i, j, e.shape)
      e = e if kept is None else e * kept
      more = read(e, problem.rows(asking_i, seen_j), x.tables, x.v.dtype)
      e = e.astype(x.v.dtype).reshape(B, K, G * size, -1)
      return (
        highest,
        total,
        y * shrink + dot(e, x.v[j], 3, 2, problem.reduce).reshape(y.shape) + more,
      )

    y = jnp.zeros((B, K, G, size, x.v.shape[-1]), problem.reduce)
    top, total, y = jax.lax.fori_loop(0, count_i, visit, (top, total, y))
    sure = jnp.where(total > 0, total, 1)
    return (y / sure).astype(x.v.dtype), top + jnp.log(sure)

  y, lse = jax.lax.map(rows, (jnp.arange(len(x.q)), x.q, asking, order, count))
  return y, lse, visits


def _backward(problem: _Problem, x: _Operands, asking, seen, drop, found: Any, g) -> _Operands:
  """The gradients of the operands: each tile's scores are found again, and give all they have to
  give at once.
  """
  y, lse, visits = found

  def rows(sums: _Operands, given):
    i, q, asking_i, order_i, count_i, y_i, lse_i, (g_i, g_lse) = given
    B, K, G, size, _ = q.shape
    inner = (
      jnp.sum(g_i.astype(problem.reduce) * y_i.astype(problem.reduce), -1, keepdims=True) - g_lse
    )
    if x.sink is not None and sums.sink is not None:
      of_sink = jnp.exp(x.sink - lse_i)
      sums = sums._replace(sink=sums.sink - jnp.sum(of_sink * inner, (0, 3), keepdims=True))
    g_BKMH = g_i.reshape(B, K, G * size, -1)

    def visit(n, state):
      dq, dk, dv, d_consts, d_tables = state
      j = order_i[n]
      seen_j = jax.tree.map(lambda a: a[j], seen)
      scores = lambda q, k, consts: problem.found(q, k, consts, asking_i, seen_j)
      s, pull = jax.vjp(scores, q, x.k[j], x.consts)
      ok = problem.allowed(asking_i, seen_j, j * s.shape[-1])[:, None, None]
      p = jnp.where(ok, jnp.exp(s - lse_i), 0)
      dp = dot(g_BKMH, x.v[j], 3, 3, problem.reduce).reshape(p.shape)
      kept = problem.kept(drop, i, j, p.shape)
      given_p = p if kept is None else p * kept
      if x.tables:
        rows = problem.rows(asking_i, seen_j)
        _, back = jax.vjp(lambda p, tables: read(p, rows, tables, x.v.dtype), given_p, x.tables)
        more, d_tables_j = back(g_i.astype(problem.reduce))
        dp, d_tables = dp + more, _plus(d_tables, d_tables_j)
      dp = dp if kept is None else dp * kept
      dv = dv.at[j].add(
        turned(g_BKMH, given_p.astype(g_BKMH.dtype).reshape(B, K, G * size, -1)).astype(dv.dtype)
      )
      dq_j, dk_j, d_consts_j = pull(p * (dp - inner))
      dk = dk.at[j].add(dk_j.astype(dk.dtype))
      return dq + dq_j.astype(dq.dtype), dk, dv, _plus(d_consts, d_consts_j), d_tables

    start = (jnp.zeros(q.shape, problem.reduce), sums.k, sums.v, sums.consts, sums.tables)
    dq, dk, dv, d_consts, d_tables = jax.lax.fori_loop(0, count_i, visit, start)
    return sums._replace(k=dk, v=dv, consts=d_consts, tables=d_tables), dq.astype(q.dtype)

  start = jax.tree.map(lambda a: jnp.zeros(a.shape, problem.reduce), x._replace(q=jnp.zeros(())))
  sums, dq = jax.lax.scan(rows, start, (jnp.arange(len(x.q)), x.q, asking, *visits, y, lse, g))
  return jax.tree.map(lambda sum, of: sum.astype(of.dtype), sums._replace(q=dq), x)


def _plus(a: Pytree, b: Pytree) -> Pytree:
  return jax.tree.map(lambda x, y: x + y.astype(x.dtype), a, b)


def _tiles(tree: Pytree, size: int) -> Pytree:
  """Arrays `[B, T, ...]` as `[tiles, B, size, ...]`, padded with zeros, which is padding's segment
  too.
  """

  def one(a: jax.Array) -> jax.Array:
    tail = [(0, 0)] * (a.ndim - 2)
    a = jnp.pad(a, [(0, 0), (0, -a.shape[1] % size), *tail])
    return jnp.moveaxis(a.reshape(a.shape[0], -1, size, *a.shape[2:]), 1, 0)

  return jax.tree.map(one, tree)


def _lifted(
  functions: tuple[Callable[..., jax.Array], ...], *tile: Any
) -> tuple[list[jax.Array], Any]:
  """Return (the smooth arrays that the functions close over, their sum as a function of those
  arrays and of a tile).

  The VJP of `_flash` gives gradients of its arguments only, so these arrays have to be arguments.
  """
  if not functions:
    return [], None
  pure, smooth, fixed = convert(lambda *tile: sum(function(*tile) for function in functions), *tile)
  return smooth, lambda smooth, *tile: pure(smooth, fixed, *tile)
