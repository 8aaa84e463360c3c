"""Top-k routing."""

from collections.abc import Callable, Iterator
import dataclasses
from fractions import Fraction

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.router.base import Route, Router, expert_load, losses, top_k

SCORES: dict[str, Callable[[jax.Array], jax.Array]] = {
  'softmax': jax.nn.softmax,
  'sigmoid': jax.nn.sigmoid,
}


@dataclasses.dataclass(frozen=True)
class TopK(Router):
  """Top-k routing by score (arXiv:1701.06538; Switch, arXiv:2101.03961; Mixtral, arXiv:2401.04088).

  Chooses the k experts with the largest score s = softmax(x W) or sigmoid(x W); their weights are
  s. Logits and scores are computed in float32.

  Attributes:
    balance: weight of the balance loss.
    z: weight of the z-loss.
    k: experts per token.
    score: function from logits to scores, softmax or sigmoid.
    renormalize: divide the k weights by their sum (Mixtral, but not Switch and DeepSeek-V2).
    scale: factor of the weights, after `renormalize`.
    bias: add a learned bias to the logits (GPT-OSS).
  """

  k: int = 2
  score: str = 'softmax'
  renormalize: bool = True
  scale: float = 1.0
  bias: bool = dataclasses.field(default=False, kw_only=True)

  def active(self, experts):
    return Fraction(self.k, experts)

  def fits(self, experts):
    if self.k > experts:
      yield f'k={self.k} is more than the {experts} experts. Expected at most {experts}.'

  def make(self, dims):
    return TopKModule(self, dims)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.k < 1:
      yield f'k={self.k} is too small. Expected at least 1 expert per token.'
    if self.score not in SCORES:
      yield f'score: {errors.unknown("score", self.score, SCORES)}'
    if self.k == 1 and self.renormalize:
      yield (
        'k=1 with renormalize=true makes every weight 1, so the router has no gradient. '
        'Expected renormalize=false.'
      )


class TopKModule(nn.Module):
  """Module of the routers that choose k experts for each token."""

  spec: TopK
  dims: Dims

  def selection_scores(self, score_BTE: jax.Array) -> jax.Array:
    """Return the scores by which experts are selected."""
    return score_BTE

  def record_load(self, load_E: jax.Array) -> None:
    """Store the number of choices of each expert, if the router uses it."""

  @nn.compact
  def __call__(self, x_BTD: jax.Array, real_BT: jax.Array) -> Route:
    s, E = self.spec, self.dims.experts
    score = Dense('DE', (self.dims.d_model, E), self.dims, bias=s.bias, name='score')
    logits_BTE = score(x_BTD.astype(jnp.float32))
    score_BTE = SCORES[s.score](logits_BTE)
    _, top_BTC = top_k(jax.lax.stop_gradient(self.selection_scores(score_BTE)), s.k)
    weight_BTC = select_scores(score_BTE, top_BTC)
    if s.renormalize:
      weight_BTC = weight_BTC / (jnp.sum(weight_BTC, -1, keepdims=True) + 1e-20)
    expert_BTC = jnp.where(real_BT[..., None], top_BTC, E)
    load_E = expert_load(expert_BTC, E)
    self.record_load(load_E)
    share_BTE = score_BTE / jnp.sum(score_BTE, -1, keepdims=True)
    aux = losses(s, logits_BTE, share_BTE, load_E, real_BT)
    return Route(expert_BTC, s.scale * weight_BTC, aux, s.k * x_BTD.shape[1])


def select_scores(score_BTE: jax.Array, expert_BTC: jax.Array) -> jax.Array:
  """Return the scores of the chosen experts, as a masked sum.

  The gradient of an indexed read would be a slow scatter.
  """
  ids = jnp.arange(score_BTE.shape[-1]).reshape(1, 1, 1, -1)
  return jnp.sum(jnp.where(expert_BTC[..., None] == ids, score_BTE[:, :, None], 0), -1)
