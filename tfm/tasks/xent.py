"""Cross-entropy over a large vocabulary, without a stored log-softmax."""

import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp


class CrossEntropy(NamedTuple):
  """The cross-entropy of each position [B, T], in float32 or wider.

  Attributes:
    loss: The minimised loss, with label smoothing and z-loss.
    nll: -log p(label). It has no gradient.
    correct: 1 where the label has the largest logit, else 0.
  """

  loss: jax.Array
  nll: jax.Array
  correct: jax.Array


class Target(NamedTuple):
  """The target distribution of each position, and the z-loss.

  Attributes:
    on: Probability of the label.
    off: Probability of every other entry.
    z_loss: Factor of log^2 Z.
  """

  on: float
  off: float
  z_loss: float

  @classmethod
  def of(
    cls, vocab: int, smoothing: float = 0.0, smooth_gold: bool = True, z_loss: float = 0.0
  ) -> 'Target':
    """Return the target for the options of `cross_entropy`."""
    off = smoothing / (vocab if smooth_gold else vocab - 1)
    on = 1.0 - smoothing + (off if smooth_gold else 0.0)
    return cls(on, off, z_loss)

  def loss(self, log_z_BT: jax.Array, gold_BT: jax.Array, total_BT: jax.Array) -> jax.Array:
    """Return the loss.

    Args:
      log_z_BT: log sum exp of the logits.
      gold_BT: The logit of the label.
      total_BT: The sum of the logits. It is used only if `off` is not 0.

    Returns:
      The loss of each position.
    """
    loss_BT = log_z_BT - (self.on - self.off) * gold_BT
    if self.off:
      loss_BT -= self.off * total_BT
    if self.z_loss:
      loss_BT += self.z_loss * jnp.square(log_z_BT)
    return loss_BT

  def gradient(self, logits: jax.Array, log_z_BT: jax.Array, is_label: jax.Array) -> jax.Array:
    """Return the gradient of the loss.

    Args:
      logits: Logits in float32 or wider, with any number of axes after B and T.
      log_z_BT: log sum exp of all logits.
      is_label: Where the entry is the label.

    Returns:
      The derivative by each logit, in the shape of `logits`.
    """
    wide = lambda x_BT: x_BT.reshape(x_BT.shape + (1,) * (logits.ndim - x_BT.ndim))
    p = jnp.exp(logits - wide(log_z_BT))
    if self.z_loss:
      p *= wide(1.0 + 2.0 * self.z_loss * log_z_BT)
    return p - jnp.where(is_label, self.on, self.off)


def cross_entropy(
  logits_BTV: jax.Array,
  labels_BT: jax.Array,
  label_smoothing: float = 0.0,
  smooth_gold: bool = True,
  z_loss: float = 0.0,
) -> CrossEntropy:
  """Return -sum_v target_v log p_v + z_loss * log^2 Z for each position.

  It is computed in float32, or in the wider dtype of the logits. Gradients flow through `loss`
  only. They are computed in one pass over the logits.

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
  target = Target.of(logits_BTV.shape[-1], label_smoothing, smooth_gold, z_loss)
  loss, nll, correct = _cross_entropy(target, logits_BTV, labels_BT)
  return CrossEntropy(loss, lax.stop_gradient(nll), lax.stop_gradient(correct))


Losses = tuple[jax.Array, jax.Array, jax.Array]
Residuals = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(target: Target, logits_BTV: jax.Array, labels_BT: jax.Array) -> Losses:
  return _forward(target, logits_BTV, labels_BT)[0]


def _forward(
  target: Target, logits_BTV: jax.Array, labels_BT: jax.Array
) -> tuple[Losses, Residuals]:
  dtype = at_least_float32(logits_BTV.dtype)
  max_BT = jnp.max(logits_BTV, -1).astype(dtype)
  # If V is sharded, XLA turns this gather into a masked local gather and a sum, and communicates
  # only [B, T].
  gold_BT = jnp.take_along_axis(logits_BTV, labels_BT[..., None], -1)[..., 0].astype(dtype)
  sum_BT = jnp.sum(jnp.exp(logits_BTV.astype(dtype) - max_BT[..., None]), -1)
  log_z_BT = jnp.log(sum_BT) + max_BT
  total_BT = jnp.sum(logits_BTV, -1, dtype=dtype) if target.off else log_z_BT
  loss_BT = target.loss(log_z_BT, gold_BT, total_BT)
  out = (loss_BT, log_z_BT - gold_BT, (gold_BT >= max_BT).astype(dtype))
  return out, (logits_BTV, labels_BT, log_z_BT)


def _backward(target: Target, residuals: Residuals, cotangents: Losses) -> tuple[jax.Array, None]:
  logits_BTV, labels_BT, log_z_BT = residuals
  is_label_BTV = _is_label(logits_BTV, labels_BT)
  logits_BTV = logits_BTV.astype(log_z_BT.dtype)
  grad_BTV = target.gradient(logits_BTV, log_z_BT, is_label_BTV)
  grad_BTV *= cotangents[0][..., None]
  return grad_BTV.astype(residuals[0].dtype), None


_cross_entropy.defvjp(_forward, _backward)


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
  """Return float32, or `dtype` if it is wider."""
  return jnp.promote_types(dtype, jnp.float32)


def _is_label(logits_BTV: jax.Array, labels_BT: jax.Array) -> jax.Array:
  ids_BTV = lax.broadcasted_iota(labels_BT.dtype, logits_BTV.shape, logits_BTV.ndim - 1)
  return ids_BTV == labels_BT[..., None]
