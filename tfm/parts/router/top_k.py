"""Each token's best experts (arXiv:1701.06538, 2101.03961, Mixtral arXiv:2401.04088)."""

from collections.abc import Callable, Iterator
import dataclasses
from fractions import Fraction

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.router.base import Route, Router, load, losses

SCORES: dict[str, Callable[[jax.Array], jax.Array]] = {
  'softmax': jax.nn.softmax,
  'sigmoid': jax.nn.sigmoid,
}


@dataclasses.dataclass(frozen=True)
class TopK(Router):
  """The k experts of the largest score s = softmax(x W) (or sigmoid), taken s times; logits and
  scores in float32.

  `renormalize` divides the k weights by their sum (Mixtral; not Switch, DeepSeek-V2); `scale`
  multiplies them after. `bias` adds a learned one to the logits (GPT-OSS)."""

  k: int = 2
  score: str = 'softmax'
  renormalize: bool = True
  scale: float = 1.0
  bias: bool = dataclasses.field(default=False, kw_only=True)

  def active(self, experts):
    return Fraction(self.k, experts)

  def fits(self, experts):
    if self.k > experts:
      yield f'k: {self.k} of {experts} experts cannot be chosen. Expected at most {experts}.'

  def make(self, dims):
    return Chosen(self, dims)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.k < 1:
      yield f'k: is {self.k}. Expected 1 or more experts a token.'
    if self.score not in SCORES:
      yield f'score: {errors.unknown("score", self.score, SCORES)}'
    if self.k == 1 and self.renormalize:
      yield 'k=1, renormalize: the one weight is always 1, and the router learns nothing. Expected renormalize=no.'


class Chosen(nn.Module):
  """The module of every router that takes each token's k best."""

  spec: TopK
  dims: Dims

  def chosen(self, score_BTE: jax.Array) -> jax.Array:
    """What the k largest are taken of."""
    return score_BTE

  def told(self, load_E: jax.Array) -> None:
    """What is to be known of the load."""

  @nn.compact
  def __call__(self, x_BTD: jax.Array, real_BT: jax.Array) -> Route:
    s, E = self.spec, self.dims.experts
    score = Dense('DE', (self.dims.d_model, E), self.dims, bias=s.bias, name='score')
    logits_BTE = score(x_BTD.astype(jnp.float32))
    score_BTE = SCORES[s.score](logits_BTE)
    _, top_BTC = jax.lax.top_k(jax.lax.stop_gradient(self.chosen(score_BTE)), s.k)
    weight_BTC = picked(score_BTE, top_BTC)
    if s.renormalize:
      weight_BTC = weight_BTC / (jnp.sum(weight_BTC, -1, keepdims=True) + 1e-20)
    expert_BTC = jnp.where(real_BT[..., None], top_BTC, E)
    load_E = load(expert_BTC, E)
    self.told(load_E)
    share_BTE = score_BTE / jnp.sum(score_BTE, -1, keepdims=True)
    aux = losses(s, logits_BTE, share_BTE, load_E, real_BT)
    return Route(expert_BTC, s.scale * weight_BTC, aux, s.k * x_BTD.shape[1])


def picked(score_BTE: jax.Array, expert_BTC: jax.Array) -> jax.Array:
  """The scores of the chosen experts, as a masked sum: the gradient of an indexed read is a slow
  scatter.
  """
  ids = jnp.arange(score_BTE.shape[-1]).reshape(1, 1, 1, -1)
  return jnp.sum(jnp.where(expert_BTC[..., None] == ids, score_BTE[:, :, None], 0), -1)
