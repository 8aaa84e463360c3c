"""Blockwise (flash) attention in plain JAX, with memory linear in the sequence length."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core.closures import convert
from tfm.parts.attend.base import Attend, Scores, scores_fit
from tfm.parts.attend.dense import dot, dot_transposed, qk_products
from tfm.parts.attend.value_table import weighted_vectors
from tfm.parts.attend.views import attend_views, useful_views
from tfm.parts.stored_names import named
from tfm.parts.term import sum_terms
from tfm.parts.tokeninfo import TokenInfo

Pytree = Any


@dataclasses.dataclass(frozen=True)
class Blockwise(Attend):
  """Flash attention in plain JAX, tile by tile (arXiv:2205.14135, arXiv:2307.08691).

  It keeps a running maximum and sum per query. Tiles that are masked out in every sequence are
  skipped, forward and backward. So causal attention costs half, a window its band, and packed
  documents their squares. Long sequences are sorted into the order of `Mask.views`, so that
  strided, fixed and dilated masks also cost about their allowed pairs.

  A pair in a computed tile costs 4 N H FLOPs forward and 10 N H backward, which recomputes the
  scores. Memory is B N (T H + queries keys) numbers, and B N T H more for each further view.

  Attributes:
    queries: the number of queries in a tile.
    keys: the number of keys in a tile.
  """

  queries: int = 256
  keys: int = 256

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1:
      yield f'queries={self.queries}, keys={self.keys} must be positive. Expected at least 1.'

  def loses(self, platform, B, N, T, S):
    if scores_fit(platform, B, N, T, S):
      return f'{B * N * T * S:,} scores fit into memory, and a dense kernel is faster'
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    views = useful_views(scores.mask, q_BTNH.shape[1] / self.queries)
    return attend_views(self._summed, views, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)

  def _summed(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    """Return y_BTNH and the log-sum-exp lse_BTN of one view."""
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    size, width = min(self.queries, -(-T // 8) * 8), min(self.keys, -(-S // 8) * 8)
    q_info, k_info = _tiles(q, size), _tiles(k, width)
    tile = (jax.tree.map(lambda a: a[0], q_info), jax.tree.map(lambda a: a[0], k_info))
    of_bias, bias = _lift(scores.offsets, *tile)
    heads = jnp.zeros((B, size, N, H), q_BTNH.dtype), jnp.zeros((B, width, K, H), k_BSKH.dtype)
    of_content, content = _lift(tuple(map(sum_terms, scores.contents)), *heads, *tile)
    consts = (of_bias, of_content)
    problem = _Problem(scores, bias, content, S, K, jnp.dtype(reduce))
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    sink = None
    if scores.sink_N is not None:
      sink = scores.sink_N.astype(reduce).reshape(1, K, N // K, 1, 1)
    operands = _Operands(
      jnp.moveaxis(_tiles(q_BTKGH, size), 2, 4),
      jnp.moveaxis(_tiles(k_BSKH, width), 2, 3),
      jnp.moveaxis(_tiles(v_BSKH, width), 2, 3),
      consts,
      sink,
      tuple(vectors.table_UH for vectors in scores.value_tables),
    )
    y, lse = _flash(problem)(operands, q_info, k_info, scores.drop)
    y_BTNH, lse_BTNH = (
      jnp.moveaxis(a, (0, 4), (1, 2)).reshape(B, -1, N, a.shape[-1])[:, :T] for a in (y, lse)
    )
    return y_BTNH, lse_BTNH[..., 0]


class _Operands(NamedTuple):
  """The differentiable arrays of the kernel.

  Attributes:
    q: queries, `[tiles, B, K, G, queries, H]`.
    k: keys, `[tiles, B, K, keys, H]`.
    v: values, `[tiles, B, K, keys, H]`.
    consts: the arrays that biases and content terms close over.
    sink: the sink logits, `[1, K, G, 1, 1]`.
    tables: the tables of `Scores.value_tables`.
  """

  q: jax.Array
  k: jax.Array
  v: jax.Array
  consts: tuple[list[jax.Array], list[jax.Array]]
  sink: jax.Array | None
  tables: tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class _Problem:
  """Everything that is the same for all tiles.

  Attributes:
    scores: how scores are formed.
    bias: the sum of all biases, as a function of `consts` and a tile; None: no bias.
    content: the same for content terms.
    S: the number of keys without padding.
    K: the number of key/value heads.
    reduce: the dtype of the softmax.
  """

  scores: Scores
  bias: Callable[..., jax.Array] | None
  content: Callable[..., jax.Array] | None
  S: int
  K: int
  reduce: Any

  def tile_scores(self, q, k, consts, q_info: TokenInfo, k_info: TokenInfo) -> jax.Array:
    """Return the scores of a tile, `[B, K, G, queries, keys]`."""
    B, K, G, size, H = q.shape
    scaled = (q * jnp.asarray(self.scores.scale, q.dtype)).reshape(B, K, G * size, H)
    s = qk_products(scaled, k, self.reduce.name).reshape(B, K, G, size, -1)
    if self.content is not None:
      q_BTNH = jnp.moveaxis(q, 3, 1).reshape(B, size, -1, H)
      more = self.content(consts[1], q_BTNH, jnp.moveaxis(k, 1, 2), q_info, k_info)
      s = s + self.scores.scale * more.astype(self.reduce).reshape(s.shape)
    if self.scores.cap is not None:
      s = self.scores.cap * jnp.tanh(s / self.scores.cap)
    if self.bias is not None:
      bias_BNTS = self.bias(consts[0], q_info, k_info).astype(self.reduce)
      s = s + bias_BNTS.reshape(bias_BNTS.shape[0], K, G, size, -1)
    return s

  def allowed(self, q_info: TokenInfo, k_info: TokenInfo, column: jax.Array) -> jax.Array:
    """Return the mask of a tile, `[B, queries, keys]`, given the index of its first key.

    Keys after the last are padding.
    """
    real = (column + jnp.arange(k_info.positions.shape[1]) < self.S)[None, None]
    return self.scores.mask(q_info.rows(), k_info.columns()) & real

  def dropout_factor(self, drop, i, j, shape) -> jax.Array | None:
    """Return the dropout factors of tile (i, j) in `shape`, or None."""
    if drop is None:
      return None
    size, width = shape[-2:]
    factor = drop(i * size + jnp.arange(size), j * width + jnp.arange(width))
    return factor.reshape(shape).astype(self.reduce)

  def table_entries(self, q_info: TokenInfo, k_info: TokenInfo) -> list[jax.Array]:
    """Return the table entries of position vectors, `[B or 1, queries, keys]` each."""
    return [vectors.entries(q_info, k_info) for vectors in self.scores.value_tables]

  def visits(self, q_info: TokenInfo, k_info: TokenInfo) -> tuple[jax.Array, jax.Array]:
    """Return the tiles of keys that each tile of queries has to visit, and their number.

    Each row of the first result lists all tiles of keys, those to visit first.
    """
    tiles, _, width = k_info.positions.shape
    whole = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1), k_info)

    def any_allowed(q_info_i: TokenInfo) -> jax.Array:
      ok = self.allowed(q_info_i, whole, jnp.int32(0))
      return ok.reshape(*ok.shape[:2], tiles, width).any((0, 1, 3))

    some = jax.lax.map(any_allowed, q_info)
    return jnp.argsort(~some, axis=1, stable=True), some.sum(1)


def _flash(problem: _Problem) -> Callable[..., jax.Array]:
  """Return the kernel with a custom gradient; autodiff of the loop would store every tile's scores.

  The kernel maps (operands, query infos, key infos, dropout) to y `[tiles, B, K, G, queries, H]`
  and the log-sum-exp `[..., 1]`.
  """

  @jax.custom_vjp
  def flash(operands, q_info, k_info, drop):
    return _forward(problem, operands, q_info, k_info, drop)[:2]

  def forward(operands, q_info, k_info, drop):
    y, lse, visits = _forward(problem, operands, q_info, k_info, drop)
    y, lse = named(y, 'attention'), named(lse, 'attention')
    return (y, lse), (operands, q_info, k_info, drop, y, lse, visits)

  def backward(residuals, g):
    operands, q_info, k_info, drop, *results = residuals
    return _backward(problem, operands, q_info, k_info, drop, results, g), None, None, None

  flash.defvjp(forward, backward)
  return flash


def _forward(
  problem: _Problem, x: _Operands, q_info: TokenInfo, k_info: TokenInfo, drop
) -> tuple[jax.Array, jax.Array, Any]:
  """Return the output, the log-sum-exp of each query, and the visits."""
  order, count = visits = problem.visits(q_info, k_info)
  low = jnp.finfo(problem.reduce).min

  def rows(given):
    i, q, q_info_i, order_i, count_i = given
    B, K, G, size, _ = q.shape
    shape = (B, K, G, size, 1)
    # If all keys are masked out, half of the lowest float as maximum gives exponentials of 0.
    if x.sink is None:
      top = jnp.full(shape, low / 2, problem.reduce)
      total = jnp.zeros(shape, problem.reduce)
    else:
      top, total = jnp.broadcast_to(x.sink, shape), jnp.ones(shape, problem.reduce)

    def visit(n, state):
      top, total, y = state
      j = order_i[n]
      k_info_j = jax.tree.map(lambda a: a[j], k_info)
      s = problem.tile_scores(q, x.k[j], x.consts, q_info_i, k_info_j)
      ok = problem.allowed(q_info_i, k_info_j, j * s.shape[-1])[:, None, None]
      s = jnp.where(ok, s, low)
      highest = jnp.maximum(top, s.max(-1, keepdims=True))
      e, shrink = jnp.exp(s - highest), jnp.exp(top - highest)
      total = total * shrink + e.sum(-1, keepdims=True)
      factor = problem.dropout_factor(drop, i, j, e.shape)
      e = e if factor is None else e * factor
      more = weighted_vectors(e, problem.table_entries(q_info_i, k_info_j), x.tables, x.v.dtype)
      e = e.astype(x.v.dtype).reshape(B, K, G * size, -1)
      product = dot(e, x.v[j], 3, 2, problem.reduce).reshape(y.shape)
      return highest, total, y * shrink + product + more

    y = jnp.zeros((B, K, G, size, x.v.shape[-1]), problem.reduce)
    top, total, y = jax.lax.fori_loop(0, count_i, visit, (top, total, y))
    sure = jnp.where(total > 0, total, 1)
    return (y / sure).astype(x.v.dtype), top + jnp.log(sure)

  y, lse = jax.lax.map(rows, (jnp.arange(len(x.q)), x.q, q_info, order, count))
  return y, lse, visits


def _backward(problem: _Problem, x: _Operands, q_info, k_info, drop, results: Any, g) -> _Operands:
  """Return the gradients of the operands; the scores of each tile are recomputed."""
  y, lse, visits = results

  def rows(sums: _Operands, given):
    i, q, q_info_i, order_i, count_i, y_i, lse_i, (g_i, g_lse) = given
    B, K, G, size, _ = q.shape
    products_i = g_i.astype(problem.reduce) * y_i.astype(problem.reduce)
    inner = jnp.sum(products_i, -1, keepdims=True) - g_lse
    if x.sink is not None and sums.sink is not None:
      of_sink = jnp.exp(x.sink - lse_i)
      sums = sums._replace(sink=sums.sink - jnp.sum(of_sink * inner, (0, 3), keepdims=True))
    g_BKMH = g_i.reshape(B, K, G * size, -1)

    def visit(n, state):
      dq, dk, dv, d_consts, d_tables = state
      j = order_i[n]
      k_info_j = jax.tree.map(lambda a: a[j], k_info)
      scores = lambda q, k, consts: problem.tile_scores(q, k, consts, q_info_i, k_info_j)
      s, pull = jax.vjp(scores, q, x.k[j], x.consts)
      ok = problem.allowed(q_info_i, k_info_j, j * s.shape[-1])[:, None, None]
      p = jnp.where(ok, jnp.exp(s - lse_i), 0)
      dp = dot(g_BKMH, x.v[j], 3, 3, problem.reduce).reshape(p.shape)
      factor = problem.dropout_factor(drop, i, j, p.shape)
      dropped = p if factor is None else p * factor
      if x.tables:
        rows = problem.table_entries(q_info_i, k_info_j)
        _, back = jax.vjp(
          lambda p, tables: weighted_vectors(p, rows, tables, x.v.dtype), dropped, x.tables
        )
        more, d_tables_j = back(g_i.astype(problem.reduce))
        dp, d_tables = dp + more, _plus(d_tables, d_tables_j)
      dp = dp if factor is None else dp * factor
      p_BKMS = dropped.astype(g_BKMH.dtype).reshape(B, K, G * size, -1)
      dv = dv.at[j].add(dot_transposed(g_BKMH, p_BKMS).astype(dv.dtype))
      dq_j, dk_j, d_consts_j = pull(p * (dp - inner))
      dk = dk.at[j].add(dk_j.astype(dk.dtype))
      return dq + dq_j.astype(dq.dtype), dk, dv, _plus(d_consts, d_consts_j), d_tables

    start = (jnp.zeros(q.shape, problem.reduce), sums.k, sums.v, sums.consts, sums.tables)
    dq, dk, dv, d_consts, d_tables = jax.lax.fori_loop(0, count_i, visit, start)
    return sums._replace(k=dk, v=dv, consts=d_consts, tables=d_tables), dq.astype(q.dtype)

  start = jax.tree.map(lambda a: jnp.zeros(a.shape, problem.reduce), x._replace(q=jnp.zeros(())))
  sums, dq = jax.lax.scan(rows, start, (jnp.arange(len(x.q)), x.q, q_info, *visits, y, lse, g))
  return jax.tree.map(lambda sum, of: sum.astype(of.dtype), sums._replace(q=dq), x)


def _plus(a: Pytree, b: Pytree) -> Pytree:
  return jax.tree.map(lambda x, y: x + y.astype(x.dtype), a, b)


def _tiles(tree: Pytree, size: int) -> Pytree:
  """Return arrays `[B, T, ...]` as `[tiles, B, size, ...]`, padded with zeros (segment 0)."""

  def one(a: jax.Array) -> jax.Array:
    tail = [(0, 0)] * (a.ndim - 2)
    a = jnp.pad(a, [(0, 0), (0, -a.shape[1] % size), *tail])
    return jnp.moveaxis(a.reshape(a.shape[0], -1, size, *a.shape[2:]), 1, 0)

  return jax.tree.map(one, tree)


def _lift(
  functions: tuple[Callable[..., jax.Array], ...], *tile: Any
) -> tuple[list[jax.Array], Any]:
  """Return the sum of `functions` as a function of the float arrays that they close over.

  The custom gradient of `_flash` covers only its arguments, so these arrays must become arguments.
  Returns (arrays, function of the arrays and a tile).
  """
  if not functions:
    return [], None
  pure, smooth, fixed = convert(lambda *tile: sum(function(*tile) for function in functions), *tile)
  return smooth, lambda smooth, *tile: pure(smooth, fixed, *tile)
