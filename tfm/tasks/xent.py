"""Cross-entropy over a large vocabulary, without a stored log-softmax."""

import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp


class CrossEntropy(NamedTuple):
  """The cross-entropy of each position, float32 [B, T].

  Attributes:
    loss: The minimised loss, with label smoothing and z-loss.
    nll: -log p(label). It has no gradient.
    correct: 1 where the label has the largest logit, else 0.
  """

  loss: jax.Array
  nll: jax.Array
  correct: jax.Array


def cross_entropy(
  logits_BTV: jax.Array,
  labels_BT: jax.Array,
  label_smoothing: float = 0.0,
  smooth_gold: bool = True,
  z_loss: float = 0.0,
) -> CrossEntropy:
  """Return -sum_v target_v log p_v + z_loss * log^2 Z for each position, in float32.

  Gradients flow through `loss` only. They are computed in one pass over the logits.

  Args:
    logits_BTV: The logits, in any float dtype.
    labels_BT: The label of each position.
    label_smoothing: Probability e that is spread over the vocabulary. The target of the label is
      1 - e.
    smooth_gold: Spread it over all V tokens, otherwise over the V - 1 wrong ones.
    z_loss: Factor of log^2 Z.

  Returns:
    The loss, its plain part, and whether the label is on top.
  """
  V = logits_BTV.shape[-1]
  off = label_smoothing / (V if smooth_gold else V - 1)
  on = 1.0 - label_smoothing + (off if smooth_gold else 0.0)
  loss, nll, correct = _cross_entropy(on, off, z_loss, logits_BTV, labels_BT)
  return CrossEntropy(loss, lax.stop_gradient(nll), lax.stop_gradient(correct))


Losses = tuple[jax.Array, jax.Array, jax.Array]
Residuals = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _cross_entropy(
  on: float, off: float, z_loss: float, logits_BTV: jax.Array, labels_BT: jax.Array
) -> Losses:
  return _forward(on, off, z_loss, logits_BTV, labels_BT)[0]


def _forward(
  on: float, off: float, z_loss: float, logits_BTV: jax.Array, labels_BT: jax.Array
) -> tuple[Losses, Residuals]:
  max_BT = jnp.max(logits_BTV, -1).astype(jnp.float32)
  # If V is sharded, XLA turns this gather into a masked local gather and a sum, and communicates
  # only [B, T].
  gold_BT = jnp.take_along_axis(logits_BTV, labels_BT[..., None], -1)[..., 0].astype(jnp.float32)
  sum_BT = jnp.sum(jnp.exp(logits_BTV.astype(jnp.float32) - max_BT[..., None]), -1)
  log_z_BT = jnp.log(sum_BT) + max_BT
  loss_BT = log_z_BT - (on - off) * gold_BT
  if off:
    loss_BT -= off * jnp.sum(logits_BTV, -1, dtype=jnp.float32)
  if z_loss:
    loss_BT += z_loss * jnp.square(log_z_BT)
  out = (loss_BT, log_z_BT - gold_BT, (gold_BT >= max_BT).astype(jnp.float32))
  return out, (logits_BTV, labels_BT, log_z_BT)


def _backward(
  on: float, off: float, z_loss: float, residuals: Residuals, cotangents: Losses
) -> tuple[jax.Array, None]:
  logits_BTV, labels_BT, log_z_BT = residuals
  p_BTV = jnp.exp(logits_BTV.astype(jnp.float32) - log_z_BT[..., None])
  if z_loss:
    p_BTV *= (1.0 + 2.0 * z_loss * log_z_BT)[..., None]
  target_BTV = jnp.where(_is_label(logits_BTV, labels_BT), on, off)
  grad_BTV = cotangents[0][..., None] * (p_BTV - target_BTV)
  return grad_BTV.astype(logits_BTV.dtype), None


_cross_entropy.defvjp(_forward, _backward)


def _is_label(logits_BTV: jax.Array, labels_BT: jax.Array) -> jax.Array:
  ids_BTV = lax.broadcasted_iota(labels_BT.dtype, logits_BTV.shape, logits_BTV.ndim - 1)
  return ids_BTV == labels_BT[..., None]
