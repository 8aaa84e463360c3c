"""Router by the language of a token (X-MOD)."""

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
  """One expert per language, with weight 1 (X-MOD, arXiv:2205.06266).

  Tokens with `lang_ids` i use expert i. The router has no parameters.

  Attributes:
    balance: must be 0, as the routing is not learned.
    z: must be 0, as the routing is not learned.
    languages: names of the languages, for published configs.
    default: index of the language if `lang_ids` is not given; None: `lang_ids` is required.
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
      yield (
        'lang_ids is missing, and router.default is none. '
        'Expected the language index of each token.'
      )

  def flops(self, d_model, experts):
    return 0.0

  def make(self, dims):
    return _Language(self, dims)

  def fits(self, experts):
    if self.languages and experts > len(self.languages):
      yield (
        f'languages has {len(self.languages)} names for {experts} experts. '
        'Expected one name per expert, or none.'
      )
    if self.default is not None and not 0 <= self.default < experts:
      yield (
        f'default={self.default} is not a language index. Expected 0 to {experts - 1}, or none.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.balance or self.z:
      yield f'balance={self.balance}, z={self.z}: the routing is not learned. Expected 0 and 0.'


class _Language(nn.Module):
  spec: Language
  dims: Dims

  def __call__(
    self, x_BTD: jax.Array, real_BT: jax.Array, language_BT: jax.Array | None = None
  ) -> Route:
    s, E = self.spec, self.dims.experts
    if language_BT is None:  # no default only at initialisation, see `check_inputs`
      language_BT = jnp.full(x_BTD.shape[:2], s.default or 0, jnp.int32)
    expert_BTC = jnp.where(real_BT, language_BT, E)[..., None]
    return Route(expert_BTC, jnp.ones_like(expert_BTC, jnp.float32), jnp.zeros(()), x_BTD.shape[1])
