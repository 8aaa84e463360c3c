"""Attention as it is written: all scores at once. The reference for every other kernel."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.attend.added import read
from tfm.parts.attend.base import Attend
from tfm.parts.term import totals


@dataclasses.dataclass(frozen=True)
class DenseAttention(Attend):
  """softmax(q k) v with every score in memory.

  *Cost*: 4 B N T S H FLOPs, B N T S numbers of dtype `reduce`.
  """

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    # Heads before time, so that each head is a matrix; the query heads of one kv head lie under
    # each other.
    q_BKGTH = jnp.moveaxis(
      q_BTNH.reshape(B, T, K, N // K, H) * jnp.asarray(scores.scale, q_BTNH.dtype), 1, 3
    )
    k_BKSH, v_BKSH = jnp.moveaxis(k_BSKH, 1, 2), jnp.moveaxis(v_BSKH, 1, 2)
    s_BKMS = products(q_BKGTH.reshape(B, K, -1, H), k_BKSH, reduce)
    s_BKGTS = s_BKMS.reshape(B, K, N // K, T, S)
    for content in scores.contents:
      s_BKGTS = s_BKGTS + scores.scale * totals(content)(q_BTNH, k_BSKH, q, k).astype(
        reduce
      ).reshape(s_BKGTS.shape)
    if scores.cap is not None:
      s_BKGTS = scores.cap * jnp.tanh(s_BKGTS / scores.cap)
    for bias in scores.offsets:
      bias_BNTS = bias(q, k).astype(reduce)
      s_BKGTS = s_BKGTS + bias_BNTS.reshape(bias_BNTS.shape[0], K, N // K, T, S)
    ok_B11TS = scores.mask(q.rows(), k.columns())[:, None, None]
    sink = (
      None if scores.sink_N is None else scores.sink_N.astype(reduce).reshape(1, K, N // K, 1, 1)
    )
    rows, tables = (
      [added.rows(q, k) for added in scores.added],
      [added.table_UH for added in scores.added],
    )
    if scores.drop is None:
      y_BKGTH = mixed(s_BKGTS, v_BKSH, ok_B11TS, sink, rows, tables)
    else:
      kept_BNTS = scores.drop(jnp.arange(T), jnp.arange(S))
      p_BKGTS = softmax(s_BKGTS, ok_B11TS, sink) * kept_BNTS.reshape(s_BKGTS.shape).astype(reduce)
      y_BKGTH = jnp.einsum('BKGTS,BKSH->BKGTH', p_BKGTS.astype(v_BKSH.dtype), v_BKSH)
      y_BKGTH = y_BKGTH + read(p_BKGTS, rows, tables, v_BKSH.dtype).astype(v_BKSH.dtype)
    return jnp.moveaxis(y_BKGTH, 3, 1).reshape(B, T, N, v_BSKH.shape[-1])


def probabilities(q_BTNH, k_BSKH, q, k, scores, reduce) -> jax.Array:
  """p_BNTS, who looks at whom how much: attention to values that say which they are, at S / H times
  its cost.
  """
  B, S, K = k_BSKH.shape[:3]
  # What values are told besides is no part of who looks at whom.
  scores = dataclasses.replace(scores, added=())
  eye_BSKS = jnp.broadcast_to(jnp.eye(S, dtype=k_BSKH.dtype)[None, :, None], (B, S, K, S))
  return jnp.moveaxis(DenseAttention()(q_BTNH, k_BSKH, eye_BSKS, q, k, scores, reduce), 2, 1)


def dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int, dtype: Any = None) -> jax.Array:
  """a b, head by head, contracting an axis of each."""
  return jax.lax.dot_general(
    a, b, (((axis_a,), (axis_b,)), ((0, 1), (0, 1))), preferred_element_type=dtype
  )


def turned(a_BKMH: jax.Array, b_BKMS: jax.Array) -> jax.Array:
  """b^T a, found as (a^T b)^T: it is the small a that is turned round, and held so until
  multiplied.
  """
  a_BKHM = jax.lax.optimization_barrier(jnp.swapaxes(a_BKMH, 2, 3))
  return jnp.swapaxes(dot(a_BKHM, b_BKMS, 3, 2), 2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def products(q_BKMH: jax.Array, k_BKSH: jax.Array, dtype: str) -> jax.Array:
  """q k^T in `dtype`.

  *Why its own VJP*: autodiff would have ds, which is large, turned round to find the gradient of k.
  """
  return dot(q_BKMH, k_BKSH, 3, 3, dtype)


def _products_backward(dtype, residuals, g_BKMS):
  q_BKMH, k_BKSH = residuals
  g_BKMS = g_BKMS.astype(k_BKSH.dtype)
  return dot(g_BKMS, k_BKSH, 3, 2), turned(q_BKMH, g_BKMS)


products.defvjp(lambda q, k, dtype: (products(q, k, dtype), (q, k)), _products_backward)


def _exponentials(s, ok, sink):
  """(exp(s - m) where ok, else 0; the sum of these and of the sink's; exp(sink - m)), m the largest
  of a row.
  """
  # A sum, which XLA's CPU compiler computes as it multiplies; a choice it writes and reads again.
  s = s + jnp.where(ok, 0, -jnp.inf).astype(s.dtype)
  # A row that sees nobody has no largest: against any number all its exponentials are 0.
  top = jnp.maximum(jnp.max(s, -1, keepdims=True), jnp.finfo(s.dtype).min if sink is None else sink)
  e = jnp.exp(s - top)
  of_sink = 0 if sink is None else jnp.exp(sink - top)
  return e, jnp.sum(e, -1, keepdims=True) + of_sink, of_sink


@jax.custom_vjp
def mixed(
  s_BKGTS: jax.Array, v_BKSH: jax.Array, ok: jax.Array, sink: jax.Array | None,
  rows: list[jax.Array], tables: list[jax.Array],
) -> jax.Array:  # fmt: skip
  """softmax(s) v, as `softmax` has it, and what it reads of `rows` of `tables`: y_BKGTH.

  *Why its own VJP*: what belongs to a row is divided, multiplied and summed where it is as small as
  y; of the size of the scores only their exponentials are kept. sum p dp is sum y dy
  (arXiv:2205.14135)."""
  return _mix(s_BKGTS, v_BKSH, ok, sink, rows, tables)[0]


def _mix(s_BKGTS, v_BKSH, ok, sink, rows, tables):
  B, K, G, T, S = s_BKGTS.shape
  e, total, of_sink = _exponentials(s_BKGTS, ok, sink)
  e_BKMS = e.astype(v_BKSH.dtype).reshape(B, K, G * T, S)
  share = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)
  y_BKGTH = dot(e_BKMS, v_BKSH, 3, 2, s_BKGTS.dtype).reshape(B, K, G, T, -1)
  y_BKGTH = ((y_BKGTH + read(e, rows, tables, v_BKSH.dtype)) * share).astype(v_BKSH.dtype)
  return y_BKGTH, (e_BKMS, share, y_BKGTH, v_BKSH, of_sink, sink, rows, tables)


def _mix_backward(residuals, g_BKGTH):
  e_BKMS, share, y_BKGTH, v_BKSH, of_sink, sink, rows, tables = residuals
  B, K, G, T, H = g_BKGTH.shape
  dtype = share.dtype
  g_BKGTH = g_BKGTH.astype(dtype)
  # `share` goes to what is as small as y: of the size of the scores a difference and a product are
  # left.
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
    _, back = jax.vjp(lambda e, tables: read(e, rows, tables, v_BKSH.dtype), e_BKGTS, tables)
    de_BKGTS, d_tables = back(g_BKGTH)
    ds_BKGTS = ds_BKGTS + e_BKGTS * de_BKGTS
  return ds_BKGTS, turned(g_BKMH, e_BKMS), None, d_sink, None, d_tables


mixed.defvjp(_mix, _mix_backward)


@jax.custom_vjp
def softmax(s: jax.Array, ok: jax.Array, sink: jax.Array | None = None) -> jax.Array:
  """exp(s) / (sum of exp(s) where ok + exp(sink)) over the last axis, 0 where not ok; a row that is
  nowhere ok is 0.

  *Why its own VJP*: the probabilities are all its gradient needs, p (g - sum g p); autodiff keeps
  three arrays of their size."""
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
    # The sink's own probability is what the others leave, except in rows that see nobody.
    left = jnp.where(jnp.any(ok, -1, keepdims=True), 1 - jnp.sum(p, -1, keepdims=True), 0)
    spread = tuple(i for i, n in enumerate(sink.shape) if n == 1)
    d_sink = jnp.sum(-left * mean, spread, keepdims=True).astype(sink.dtype)
  return p * (g - mean), None, d_sink


softmax.defvjp(_forward, _backward)
