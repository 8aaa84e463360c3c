"""Top-k routing within the best groups of experts."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import sharded
from tfm.parts.router.base import top_k
from tfm.parts.router.top_k import TopK, TopKModule

#: Number of the largest scores of a group that are summed to the score of the group.
GROUP_SCORES = {'max': 1, 'top2': 2}


@dataclasses.dataclass(frozen=True)
class Grouped(TopK):
  """Top-k routing within the best groups of experts (DeepSeek-V2, arXiv:2405.04434).

  DeepSeek-V3 (arXiv:2412.19437) adds a bias b per expert to the scores for the selection of groups
  and experts, but not to the weights. The bias has no gradient. After each step it becomes b + rate
  sign(mean load - load) (arXiv:2408.15664).

  The other fields are documented in `TopK`.

  Attributes:
    score: function from logits to scores, softmax or sigmoid.
    groups: number of groups of experts.
    keep: number of groups from which experts are selected.
    group_score: score of a group: 'max' or 'top2', the sum of the largest 1 or 2 scores.
    rate: step size of the bias; None for no bias (V2).
  """

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
    # [..., E], with the layers of a scanned segment first.
    load, bias = load['bias'], params['bias']
    change = self.rate * jnp.sign(jnp.mean(load, -1, keepdims=True) - load)
    return params | {'bias': bias + change.astype(bias.dtype)}

  def fits(self, experts):
    yield from super().fits(experts)
    if self.groups < 1 or experts % self.groups:
      yield (
        f'groups={self.groups} does not divide {experts} experts. Expected a divisor of {experts}.'
      )
    elif (size := experts // self.groups) < (n := GROUP_SCORES.get(self.group_score, 1)):
      yield (
        f'groups={self.groups} makes groups of {size} experts, and group_score={self.group_score} '
        f'needs {n}. Expected at most {experts // n} groups.'
      )
    elif self.keep * size < self.k <= experts:
      yield (
        f'keep={self.keep} groups of {size} experts are fewer than k={self.k} experts. '
        f'Expected at least {-(-self.k // size)} groups.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 1 <= self.keep <= self.groups:
      yield f'keep={self.keep} is not from 1 to groups={self.groups}. Expected 1 to {self.groups}.'
    if self.group_score not in GROUP_SCORES:
      yield f'group_score: {errors.unknown("group score", self.group_score, GROUP_SCORES)}'


class _Grouped(TopKModule):
  spec: Grouped

  def selection_scores(self, score_BTE):
    s, (B, T, E) = self.spec, score_BTE.shape
    if s.rate is not None:
      bias_E = self.param('bias', sharded(nn.initializers.zeros, 'E'), (E,), jnp.float32)
      score_BTE = score_BTE + bias_E.reshape(1, 1, E)
    inside = score_BTE.reshape(B, T, s.groups, E // s.groups)
    best = jnp.sum(top_k(inside, GROUP_SCORES[s.group_score])[0], -1)
    _, kept = top_k(best, s.keep)
    ok = jnp.any(kept[..., None] == jnp.arange(s.groups).reshape(1, 1, 1, -1), 2)
    return jnp.where(ok[..., None], inside, -jnp.inf).reshape(B, T, E)

  def record_load(self, load_E):
    if self.spec.rate is not None:
      self.sow('load', 'bias', load_E, init_fn=lambda: None, reduce_fn=lambda _, new: new)
