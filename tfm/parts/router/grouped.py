"""The best experts of the best groups (DeepSeek-V2 arXiv:2405.04434, DeepSeek-V3 arXiv:2412.19437)."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import sharded
from tfm.parts.router.top_k import Chosen, TopK

#: How many of a group's largest scores are summed to its own.
GROUP_SCORES = {'max': 1, 'top2': 2}


@dataclasses.dataclass(frozen=True)
class Grouped(TopK):
  """TopK within the `keep` best of `groups` groups of experts; a group is as good as its best one,
  or best two.

  `rate` keeps a bias b an expert that is added to s where experts (and groups) are chosen, never to
  the weights. It has no gradient: after each step b <- b + rate sign(mean load - load)
  (arXiv:2408.15664). None keeps no bias (V2)."""

  score: str = 'sigmoid'
  groups: int = 4
  keep: int = 2
  group_score: str = 'top2'
  rate: float | None = 0.001

  def make(self, dims):
    return _Grouped(self, dims)

  def updated(self, params, load):
    if self.rate is None:
      return params
    # [..., E]: a scanned segment's layers come first.
    load, bias = load['bias'], params['bias']
    change = self.rate * jnp.sign(jnp.mean(load, -1, keepdims=True) - load)
    return params | {'bias': bias + change.astype(bias.dtype)}

  def fits(self, experts):
    yield from super().fits(experts)
    if self.groups < 1 or experts % self.groups:
      yield f'groups: {self.groups} groups do not divide {experts} experts. Expected a divisor of {experts}.'
    elif (size := experts // self.groups) < (n := GROUP_SCORES.get(self.group_score, 1)):
      yield f'groups: a group of {size} has no {n} best experts. Expected at most {experts // n} groups.'
    elif self.keep * size < self.k <= experts:
      yield f'keep: {self.keep} groups of {size} hold no {self.k} experts. Expected at least {-(-self.k // size)}.'

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 1 <= self.keep <= self.groups:
      yield f'keep: {self.keep} of {self.groups} groups cannot be kept. Expected 1 to {self.groups}.'
    if self.group_score not in GROUP_SCORES:
      yield f'group_score: {errors.unknown("group score", self.group_score, GROUP_SCORES)}'


class _Grouped(Chosen):
  spec: Grouped

  def chosen(self, score_BTE):
    s, (B, T, E) = self.spec, score_BTE.shape
    if s.rate is not None:
      bias_E = self.param('bias', sharded(nn.initializers.zeros, 'E'), (E,), jnp.float32)
      score_BTE = score_BTE + bias_E.reshape(1, 1, E)
    inside = score_BTE.reshape(B, T, s.groups, E // s.groups)
    best = jnp.sum(jax.lax.top_k(inside, GROUP_SCORES[s.group_score])[0], -1)
    _, kept = jax.lax.top_k(best, s.keep)
    ok = jnp.any(kept[..., None] == jnp.arange(s.groups).reshape(1, 1, 1, -1), 2)
    return jnp.where(ok[..., None], inside, -jnp.inf).reshape(B, T, E)

  def told(self, load_E):
    if self.spec.rate is not None:
      self.sow('load', 'bias', load_E, init_fn=lambda: None, reduce_fn=lambda _, new: new)
