"""Flash attention as loops over tiles of queries and keys, forward and backward."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Scores
from tfm.parts.attend.dense import dot, dot_transposed, qk_products
from tfm.parts.attend.value_table import weighted_vectors
from tfm.parts.tokeninfo import TokenInfo

Pytree = Any


class Operands(NamedTuple):
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
class Problem:
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


def forward(
  problem: Problem, x: Operands, q_info: TokenInfo, k_info: TokenInfo, drop
) -> tuple[jax.Array, jax.Array, Any]:
  """Return the output in dtype `reduce`, the log-sum-exp of each query, and the visits."""
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
    return y / sure, top + jnp.log(sure)

  y, lse = jax.lax.map(rows, (jnp.arange(len(x.q)), x.q, q_info, order, count))
  return y, lse, visits


def gradients(problem: Problem, x: Operands, q_info, k_info, drop, results: Any, g) -> Operands:
  """Return the gradients of the operands in dtype `reduce`; scores are recomputed per tile.

  The gradient of queries is in the dtype of the queries.

  Args:
    problem: what all tiles share.
    x: the operands.
    q_info: the token info of queries, in tiles.
    k_info: the token info of keys, in tiles.
    drop: the dropout, or None.
    results: the output, the log-sum-exp over all keys, and the visits of `forward`.
    g: the gradients of the output and of the log-sum-exp.

  Returns:
    The gradients.
  """
  y, lse, visits = results

  def rows(sums: Operands, given):
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
        dp, d_tables = dp + more, plus(d_tables, d_tables_j)
      dp = dp if factor is None else dp * factor
      p_BKMS = dropped.astype(g_BKMH.dtype).reshape(B, K, G * size, -1)
      dv = dv.at[j].add(dot_transposed(g_BKMH, p_BKMS).astype(dv.dtype))
      dq_j, dk_j, d_consts_j = pull(p * (dp - inner))
      dk = dk.at[j].add(dk_j.astype(dk.dtype))
      return dq + dq_j.astype(dq.dtype), dk, dv, plus(d_consts, d_consts_j), d_tables

    start = (jnp.zeros(q.shape, problem.reduce), sums.k, sums.v, sums.consts, sums.tables)
    dq, dk, dv, d_consts, d_tables = jax.lax.fori_loop(0, count_i, visit, start)
    return sums._replace(k=dk, v=dv, consts=d_consts, tables=d_tables), dq.astype(q.dtype)

  start = jax.tree.map(lambda a: jnp.zeros(a.shape, problem.reduce), x._replace(q=jnp.zeros(())))
  sums, dq = jax.lax.scan(rows, start, (jnp.arange(len(x.q)), x.q, q_info, *visits, y, lse, g))
  return sums._replace(q=dq)


def plus(a: Pytree, b: Pytree) -> Pytree:
  """Return the sum of two trees, in the dtypes of the first."""
  return jax.tree.map(lambda x, y: x + y.astype(x.dtype), a, b)


def tiles(tree: Pytree, size: int) -> Pytree:
  """Return arrays `[B, T, ...]` as `[tiles, B, size, ...]`, padded with zeros (segment 0)."""

  def one(a: jax.Array) -> jax.Array:
    tail = [(0, 0)] * (a.ndim - 2)
    a = jnp.pad(a, [(0, 0), (0, -a.shape[1] % size), *tail])
    return jnp.moveaxis(a.reshape(a.shape[0], -1, size, *a.shape[2:]), 1, 0)

  return jax.tree.map(one, tree)


def operands(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  consts: tuple[list[jax.Array], list[jax.Array]],
  scores: Scores,
  sizes: tuple[int, int],
  reduce: str,
) -> Operands:
  """Return the arrays of an attention call in tiles.

  Args:
    q_BTNH: queries.
    k_BSKH: keys.
    v_BSKH: values.
    consts: the arrays that biases and content terms close over.
    scores: how scores are formed.
    sizes: the numbers of queries and of keys in a tile.
    reduce: the dtype of the softmax.

  Returns:
    The operands.
  """
  B, T, N, H = q_BTNH.shape
  K, (size, width) = k_BSKH.shape[2], sizes
  sink = None
  if scores.sink_N is not None:
    sink = scores.sink_N.astype(reduce).reshape(1, K, N // K, 1, 1)
  return Operands(
    jnp.moveaxis(tiles(q_BTNH.reshape(B, T, K, N // K, H), size), 2, 4),
    jnp.moveaxis(tiles(k_BSKH, width), 2, 3),
    jnp.moveaxis(tiles(v_BSKH, width), 2, 3),
    consts,
    sink,
    tuple(vectors.table_UH for vectors in scores.value_tables),
  )


def untiled(y: jax.Array, T: int) -> jax.Array:
  """Return tiles `[tiles, B, K, G, queries, X]` as `[B, T, N, X]`, without padding."""
  _, B, K, G, _, X = y.shape
  return jnp.moveaxis(y, (0, 4), (1, 2)).reshape(B, -1, K * G, X)[:, :T]


def tile_sizes(queries: int, keys: int, T: int, S: int) -> tuple[int, int]:
  """Return the tile sizes for T queries and S keys, given the largest sizes."""
  return min(queries, -(-T // 8) * 8), min(keys, -(-S // 8) * 8)
