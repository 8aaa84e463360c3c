"""One expert for each language: a token's language chooses (X-MOD)."""

from collections.abc import Iterator
import dataclasses
from fractions import Fraction

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.context import Dims
from tfm.parts.embed import ids_in_range
from tfm.parts.router.base import Route, Router


@dataclasses.dataclass(frozen=True)
class Language(Router):
  """Expert i for tokens of language i, the input `lang_ids`, with weight 1 (arXiv:2205.06266).
  Nothing is learned.

  Attributes:
    languages: names of the languages, for published configs.
    default: the language of tokens without the input. None: the input must be given.
  """

  balance: float = 0.0
  z: float = 0.0
  languages: tuple[str, ...] = ()
  default: int | None = 0

  @property
  def reads(self):
    return frozenset({'language'})

  def active(self, experts):
    return Fraction(1, experts)

  def check_inputs(self, inputs, experts):
    if (ids_BT := inputs.get('lang_ids')) is not None:
      ids_in_range.check('lang_ids', ids_BT, experts, 'languages')
    elif self.default is None:
      yield 'lang_ids is missing, and router.default is none. Expected the number of the language of each token.'

  def make(self, dims):
    return _Language(self, dims)

  def fits(self, experts):
    if self.languages and experts > len(self.languages):
      yield f'languages: {len(self.languages)} have names, for {experts} experts. Expected as many, or none.'
    if self.default is not None and not 0 <= self.default < experts:
      yield f'default={self.default} is no language. Expected one of 0 to {experts - 1}, or none.'

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.balance or self.z:
      yield f'balance={self.balance}, z={self.z}: no choice is learned. Expected 0 and 0.'


class _Language(nn.Module):
  spec: Language
  dims: Dims

  def __call__(
    self, x_BTD: jax.Array, real_BT: jax.Array, language_BT: jax.Array | None = None
  ) -> Route:
    s, E = self.spec, self.dims.experts
    if language_BT is None:  # without a default only while parameters are made, see `check_inputs`
      language_BT = jnp.full(x_BTD.shape[:2], s.default or 0, jnp.int32)
    expert_BTC = jnp.where(real_BT, language_BT, E)[..., None]
    return Route(expert_BTC, jnp.ones_like(expert_BTC, jnp.float32), jnp.zeros(()), x_BTD.shape[1])
