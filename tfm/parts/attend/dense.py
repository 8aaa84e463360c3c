"""Attention as it is written: all scores at once. The reference for every other kernel."""

import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Attend


@dataclasses.dataclass(frozen=True)
class DenseAttention(Attend):
  """softmax(q k) v with every score in memory.

  *Cost*: 4 B N T S H FLOPs, B N T S numbers of dtype `reduce`.
  """

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    s_BKGTS = jnp.einsum('BTKGH,BSKH->BKGTS', q_BTKGH, k_BSKH, preferred_element_type=reduce) * scores.scale
    if scores.cap is not None:
      s_BKGTS = scores.cap * jnp.tanh(s_BKGTS / scores.cap)
    for bias in scores.biases:
      bias_BNTS = bias(q, k).astype(reduce)
      s_BKGTS = s_BKGTS + bias_BNTS.reshape(bias_BNTS.shape[0], K, N // K, T, S)
    ok_B11TS = scores.mask(q.rows(), k.columns())[:, None, None]
    sink = None if scores.sink_N is None else scores.sink_N.astype(reduce).reshape(1, K, N // K, 1, 1)
    p_BKGTS = softmax(s_BKGTS, ok_B11TS, sink).astype(v_BSKH.dtype)
    if scores.drop is not None:
      p_BKGTS = scores.drop(p_BKGTS)
    return jnp.einsum('BKGTS,BSKH->BTKGH', p_BKGTS, v_BSKH).reshape(B, T, N, v_BSKH.shape[-1])


@jax.custom_vjp
def softmax(s: jax.Array, ok: jax.Array, sink: jax.Array | None = None) -> jax.Array:
  """exp(s) / (sum of exp(s) where ok + exp(sink)) over the last axis, 0 where not ok; a row that is nowhere ok is 0.

  *Why its own VJP*: the probabilities are all its gradient needs, p (g - sum g p); autodiff keeps three arrays of their
  size.
  """
  low = jnp.finfo(s.dtype).min
  s = jnp.where(ok, s, low)
  top = jnp.max(s, -1, keepdims=True)
  if sink is not None:
    top = jnp.maximum(top, sink)
  top = jax.lax.stop_gradient(top)
  e = jnp.where(ok, jnp.exp(s - top), 0)
  total = jnp.sum(e, -1, keepdims=True)
  if sink is not None:
    total = total + jnp.exp(sink - top)
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
