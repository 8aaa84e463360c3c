"""Deterministic SparseMixer-v2 routing."""

from collections.abc import Iterator
import dataclasses
from fractions import Fraction

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.router.base import Route, Router, expert_load, losses
from tfm.parts.router.top_k import select_scores


@dataclasses.dataclass(frozen=True)
class SparseMixer(Router):
  """Two experts with independent weights (SparseMixer-v2, arXiv:2409.12136).

  Chooses the two experts with the largest logits x W. The weight of a choice is a softmax over the
  logits close to it. For the first expert these are the logits l with (max - l) / max(|l|, max) <=
  2 `jitter`. The second expert is chosen in the same way among the others. The weights need not sum
  to 1 (Phi-3.5-MoE, arXiv:2404.14219). If no other logit is close, the weight is 1 and has no
  gradient.

  Note:
    In training the paper samples the experts and estimates the gradient of the choice. Here the
    choice is the argmax, and the gradient is that of the softmax.

  Attributes:
    balance: weight of the balance loss.
    z: weight of the z-loss.
    jitter: half the relative distance of logits that count as close.
  """

  jitter: float = 0.01

  def active(self, experts):
    return Fraction(2, experts)

  def fits(self, experts):
    if experts < 2:
      yield f'sparse_mixer chooses 2 experts, and there are {experts}. Expected at least 2.'

  def make(self, dims):
    return _SparseMixer(self, dims)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.jitter < 0:
      yield f'jitter={self.jitter} is negative. Expected at least 0.'


class _SparseMixer(nn.Module):
  spec: SparseMixer
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, real_BT: jax.Array) -> Route:
    s, E = self.spec, self.dims.experts
    logits_BTE = Dense('DE', (self.dims.d_model, E), self.dims, name='score')(
      x_BTD.astype(jnp.float32)
    )
    first_BT, weight_BT = _chosen(logits_BTE, logits_BTE, s.jitter)
    taken_BTE = first_BT[..., None] == jnp.arange(E).reshape(1, 1, E)
    second_BT, other_BT = _chosen(jnp.where(taken_BTE, -jnp.inf, logits_BTE), logits_BTE, s.jitter)
    chosen_BTC = jnp.stack([first_BT, second_BT], -1)
    expert_BTC = jnp.where(real_BT[..., None], chosen_BTC, E)
    aux = losses(s, logits_BTE, jax.nn.softmax(logits_BTE), expert_load(expert_BTC, E), real_BT)
    return Route(expert_BTC, jnp.stack([weight_BT, other_BT], -1), aux, 2 * x_BTD.shape[1])


def _chosen(
  left_BTE: jax.Array, logits_BTE: jax.Array, jitter: float
) -> tuple[jax.Array, jax.Array]:
  """Return the expert with the largest logit in `left_BTE`, and its weight."""
  fixed_BTE, values_BTE = (jax.lax.stop_gradient(a) for a in (left_BTE, logits_BTE))
  best_BT = jnp.argmax(fixed_BTE, -1)
  top_BT1 = jnp.max(fixed_BTE, -1, keepdims=True)
  near_BTE = (top_BT1 - values_BTE) / jnp.maximum(jnp.abs(values_BTE), top_BT1) <= 2 * jitter
  share_BTE = jax.nn.softmax(logits_BTE, where=near_BTE & jnp.isfinite(fixed_BTE))
  return best_BT, select_scores(share_BTE, best_BT[..., None])[..., 0]
