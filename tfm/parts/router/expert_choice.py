"""Routing in which experts choose tokens."""

from collections.abc import Iterator
import dataclasses
from fractions import Fraction
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.router.base import Route, Router, expert_load, losses


@dataclasses.dataclass(frozen=True)
class ExpertChoice(Router):
  """Each expert chooses its best tokens (arXiv:2202.09368).

  An expert takes the ceil(n capacity / E) tokens with the largest softmax(x W), of the n tokens of
  a sequence. The weights are the softmax values. A token has `capacity` experts on average, and
  from none to all of them. The load is always balanced. Choices depend on later tokens, so models
  with this router are not causal and do not decode.

  Note:
    Tokens compete within their sequence. In the paper they compete within the batch.

  Attributes:
    balance: weight of the balance loss.
    z: weight of the z-loss.
    capacity: mean number of experts per token.
  """

  balance: float = 0.0
  capacity: float = 2.0

  @property
  def causal(self):
    return False

  @property
  def per_token(self):
    return False

  def active(self, experts):
    return min(Fraction(self.capacity).limit_denominator(1000) / experts, Fraction(1))

  def make(self, dims):
    return _ExpertChoice(self, dims)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.capacity <= 0:
      yield f'capacity={self.capacity} is too small. Expected more than 0 experts per token.'


class _ExpertChoice(nn.Module):
  spec: ExpertChoice
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, real_BT: jax.Array) -> Route:
    s, T, E = self.spec, x_BTD.shape[1], self.dims.experts
    logits_BTE = Dense('DE', (self.dims.d_model, E), self.dims, name='score')(
      x_BTD.astype(jnp.float32)
    )
    score_BTE = jax.nn.softmax(logits_BTE)
    order_BTE = jnp.argsort(jnp.where(real_BT[..., None], -score_BTE, jnp.inf), axis=1)
    rank_BTE = jnp.argsort(order_BTE, axis=1)
    room_B = jnp.ceil(jnp.sum(real_BT, 1) * s.capacity / E)
    taken_BTE = (rank_BTE < room_B[:, None, None]) & real_BT[..., None]
    expert_BTE = jnp.where(taken_BTE, jnp.arange(E).reshape(1, 1, E), E)
    aux = losses(s, logits_BTE, score_BTE, expert_load(expert_BTE, E), real_BT)
    most = min(math.ceil(T * s.capacity / E), T)
    return Route(expert_BTE, score_BTE, aux, E * most, most)
