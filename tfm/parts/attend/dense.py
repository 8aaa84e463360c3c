"""Dense attention with all scores in memory: the reference for every other kernel."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Attend
from tfm.parts.attend.value_table import weighted_vectors
from tfm.parts.term import sum_terms


@dataclasses.dataclass(frozen=True)
class DenseAttention(Attend):
  """Attention with every score in memory: 4 B N T S H FLOPs, B N T S numbers of dtype `reduce`."""

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    # Heads before time, so that each head is a matrix. Query heads of a key/value head are stacked.
    scaled_BTNH = q_BTNH * jnp.asarray(scores.scale, q_BTNH.dtype)
    q_BKGTH = jnp.moveaxis(scaled_BTNH.reshape(B, T, K, N // K, H), 1, 3)
    k_BKSH, v_BKSH = jnp.moveaxis(k_BSKH, 1, 2), jnp.moveaxis(v_BSKH, 1, 2)
    s_BKMS = qk_products(q_BKGTH.reshape(B, K, -1, H), k_BKSH, reduce)
    s_BKGTS = s_BKMS.reshape(B, K, N // K, T, S)
    for content in scores.contents:
      term_BNTS = sum_terms(content)(q_BTNH, k_BSKH, q, k).astype(reduce)
      s_BKGTS = s_BKGTS + scores.scale * term_BNTS.reshape(s_BKGTS.shape)
    if scores.cap is not None:
      s_BKGTS = scores.cap * jnp.tanh(s_BKGTS / scores.cap)
    for bias in scores.offsets:
      bias_BNTS = bias(q, k).astype(reduce)
      s_BKGTS = s_BKGTS + bias_BNTS.reshape(bias_BNTS.shape[0], K, N // K, T, S)
    ok_B11TS = scores.mask(q.rows(), k.columns())[:, None, None]
    sink = None
    if scores.sink_N is not None:
      sink = scores.sink_N.astype(reduce).reshape(1, K, N // K, 1, 1)
    rows = [vectors.entries(q, k) for vectors in scores.value_tables]
    tables = [vectors.table_UH for vectors in scores.value_tables]
    if scores.drop is None:
      y_BKGTH = softmax_values(s_BKGTS, v_BKSH, ok_B11TS, sink, rows, tables)
    else:
      kept_BNTS = scores.drop(jnp.arange(T), jnp.arange(S))
      p_BKGTS = softmax(s_BKGTS, ok_B11TS, sink) * kept_BNTS.reshape(s_BKGTS.shape).astype(reduce)
      y_BKGTH = jnp.einsum('BKGTS,BKSH->BKGTH', p_BKGTS.astype(v_BKSH.dtype), v_BKSH)
      y_BKGTH = y_BKGTH + weighted_vectors(p_BKGTS, rows, tables, v_BKSH.dtype).astype(v_BKSH.dtype)
    return jnp.moveaxis(y_BKGTH, 3, 1).reshape(B, T, N, v_BSKH.shape[-1])


def probabilities(q_BTNH, k_BSKH, q, k, scores, reduce) -> jax.Array:
  """Return the attention probabilities p_BNTS, by attention to one-hot values.

  It costs S / H times the attention itself.

  Args:
    q_BTNH: queries.
    k_BSKH: keys.
    q: token info of the queries.
    k: token info of the keys.
    scores: how scores are formed.
    reduce: the dtype of the softmax.

  Returns:
    p_BNTS in the dtype of the keys.
  """
  B, S, K = k_BSKH.shape[:3]
  # Position vectors of values do not affect the probabilities.
  scores = dataclasses.replace(scores, value_tables=())
  eye_BSKS = jnp.broadcast_to(jnp.eye(S, dtype=k_BSKH.dtype)[None, :, None], (B, S, K, S))
  return jnp.moveaxis(DenseAttention()(q_BTNH, k_BSKH, eye_BSKS, q, k, scores, reduce), 2, 1)


def dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int, dtype: Any = None) -> jax.Array:
  """Return the product of each head's matrices, contracted over an axis of each.

  Args:
    a: `[B, K, ...]` with two more axes.
    b: `[B, K, ...]` with two more axes.
    axis_a: the contracted axis of a.
    axis_b: the contracted axis of b.
    dtype: the accumulation and result dtype; None: that of the inputs.

  Returns:
    `[B, K, ...]` with the remaining axis of a, then that of b.
  """
  return jax.lax.dot_general(
    a, b, (((axis_a,), (axis_b,)), ((0, 1), (0, 1))), preferred_element_type=dtype
  )


def dot_transposed(a_BKMH: jax.Array, b_BKMS: jax.Array) -> jax.Array:
  """Return b^T a as (a^T b)^T, so that the smaller array a is transposed.

  The barrier keeps XLA from undoing this.
  """
  a_BKHM = jax.lax.optimization_barrier(jnp.swapaxes(a_BKMH, 2, 3))
  return jnp.swapaxes(dot(a_BKHM, b_BKMS, 3, 2), 2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def qk_products(q_BKMH: jax.Array, k_BKSH: jax.Array, dtype: str) -> jax.Array:
  """Return q k^T in `dtype`, with a custom gradient.

  Autodiff would transpose ds, which is large, for the gradient of k.

  Args:
    q_BKMH: queries, with the query heads of a key/value head stacked along M.
    k_BKSH: keys.
    dtype: the name of the result dtype.

  Returns:
    `[B, K, M, S]`.
  """
  return dot(q_BKMH, k_BKSH, 3, 3, dtype)


def _qk_products_backward(dtype, residuals, g_BKMS):
  q_BKMH, k_BKSH = residuals
  g_BKMS = g_BKMS.astype(k_BKSH.dtype)
  return dot(g_BKMS, k_BKSH, 3, 2), dot_transposed(q_BKMH, g_BKMS)


qk_products.defvjp(lambda q, k, dtype: (qk_products(q, k, dtype), (q, k)), _qk_products_backward)


def _exponentials(s, ok, sink):
  """Return exp(s - m) where ok, its sum, and exp(sink - m), with m the maximum over keys.

  The sum includes the sink.
  """
  # XLA's CPU compiler fuses this addition with the product, but not a `where` on the scores.
  s = s + jnp.where(ok, 0, -jnp.inf).astype(s.dtype)
  # If all keys are masked out the maximum is -inf; any finite number gives exponentials of 0.
  top = jnp.maximum(jnp.max(s, -1, keepdims=True), jnp.finfo(s.dtype).min if sink is None else sink)
  e = jnp.exp(s - top)
  of_sink = 0 if sink is None else jnp.exp(sink - top)
  return e, jnp.sum(e, -1, keepdims=True) + of_sink, of_sink


@jax.custom_vjp
def softmax_values(
  s_BKGTS: jax.Array, v_BKSH: jax.Array, ok: jax.Array, sink: jax.Array | None,
  rows: list[jax.Array], tables: list[jax.Array],
) -> jax.Array:  # fmt: skip
  """Return y_BKGTH = softmax(s) (v + tables[rows]), with a custom gradient.

  Of the size of the scores, only their exponentials are stored. The division and the sums of the
  gradient are done at the size of y, with sum p dp = sum y dy (arXiv:2205.14135).

  Args:
    s_BKGTS: scores.
    v_BKSH: values.
    ok: where attention is allowed, broadcastable to the scores.
    sink: the sink logits, `[1, K, G, 1, 1]`, or None.
    rows: table entries of pairs, `[B or 1, T, S]` for each table.
    tables: position vectors of values, `[U, H]` each.

  Returns:
    y_BKGTH in the dtype of v.
  """
  return _mix(s_BKGTS, v_BKSH, ok, sink, rows, tables)[0]


def _mix(s_BKGTS, v_BKSH, ok, sink, rows, tables):
  B, K, G, T, S = s_BKGTS.shape
  e, total, of_sink = _exponentials(s_BKGTS, ok, sink)
  e_BKMS = e.astype(v_BKSH.dtype).reshape(B, K, G * T, S)
  share = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)
  y_BKGTH = dot(e_BKMS, v_BKSH, 3, 2, s_BKGTS.dtype).reshape(B, K, G, T, -1)
  y_BKGTH = ((y_BKGTH + weighted_vectors(e, rows, tables, v_BKSH.dtype)) * share).astype(
    v_BKSH.dtype
  )
  return y_BKGTH, (e_BKMS, share, y_BKGTH, v_BKSH, of_sink, sink, rows, tables)


def _mix_backward(residuals, g_BKGTH):
  e_BKMS, share, y_BKGTH, v_BKSH, of_sink, sink, rows, tables = residuals
  B, K, G, T, H = g_BKGTH.shape
  dtype = share.dtype
  g_BKGTH = g_BKGTH.astype(dtype)
  # Apply `share` at the size of y: at the size of the scores, a difference and a product remain.
  inner = jnp.sum(g_BKGTH * y_BKGTH.astype(dtype), -1, keepdims=True) * share
  g_BKGTH = g_BKGTH * share
  g_BKMH = g_BKGTH.astype(v_BKSH.dtype).reshape(B, K, G * T, H)
  d_sink = None
  if sink is not None:
    d_sink = jnp.sum(-of_sink * inner, (0, 3), keepdims=True).astype(sink.dtype)
  dp_BKMS = dot(g_BKMH, v_BKSH, 3, 3, dtype)
  e_BKGTS = e_BKMS.astype(dtype).reshape(B, K, G, T, -1)
  ds_BKGTS = e_BKGTS * (dp_BKMS.reshape(e_BKGTS.shape) - inner)
  d_tables = tables
  if tables:
    _, back = jax.vjp(
      lambda e, tables: weighted_vectors(e, rows, tables, v_BKSH.dtype), e_BKGTS, tables
    )
    de_BKGTS, d_tables = back(g_BKGTH)
    ds_BKGTS = ds_BKGTS + e_BKGTS * de_BKGTS
  return ds_BKGTS, dot_transposed(g_BKMH, e_BKMS), None, d_sink, None, d_tables


softmax_values.defvjp(_mix, _mix_backward)


@jax.custom_vjp
def softmax(s: jax.Array, ok: jax.Array, sink: jax.Array | None = None) -> jax.Array:
  """Return exp(s) / (sum of exp(s) where ok + exp(sink)) over the last axis, 0 where not ok.

  If no key is allowed, the result is 0. The custom gradient p (g - sum g p) stores only the
  probabilities; autodiff stores three arrays of that size.

  Args:
    s: scores.
    ok: where attention is allowed, broadcastable to the scores.
    sink: the sink logits, broadcastable to the scores, or None.

  Returns:
    The probabilities, in the shape and dtype of the scores.
  """
  e, total, _ = _exponentials(s, ok, sink)
  return e / jnp.where(total > 0, total, 1)


def _forward(s, ok, sink):
  p = softmax(s, ok, sink)
  return p, (p, ok, sink)


def _backward(residuals, g):
  p, ok, sink = residuals
  mean = jnp.sum(g * p, -1, keepdims=True)
  d_sink = None
  if sink is not None:
    # The probability of the sink is 1 - sum p, unless all keys are masked out.
    left = jnp.where(jnp.any(ok, -1, keepdims=True), 1 - jnp.sum(p, -1, keepdims=True), 0)
    spread = tuple(i for i, n in enumerate(sink.shape) if n == 1)
    d_sink = jnp.sum(-left * mean, spread, keepdims=True).astype(sink.dtype)
  return p * (g - mean), None, d_sink


softmax.defvjp(_forward, _backward)
