"""Which tokens may be said and at what price: penalties for repeating, biases, a vocabulary of the
user's.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math

import jax
import jax.numpy as jnp

#: Stands in a row of tokens where there is none.
NOTHING = -1


@dataclasses.dataclass(frozen=True)
class Penalties:
  """What is done to logits before a token is drawn; the defaults do nothing.

  `repetition_penalty` divides the positive logits of tokens that the row has (prompt or new) and
  multiplies the negative ones (arXiv:1909.05858). `frequency_penalty` is taken off for each time
  that a token is among the new ones, `presence_penalty` once if it is. `no_repeat_ngram` = n keeps
  a row from saying n tokens in a row that it has already (unless nothing else is left to say).
  `logit_bias` adds to the logits of some ids, -inf forbids one. `allowed` are the only ids to
  choose from: those that end a row too, if rows may end."""

  repetition_penalty: float = 1.0
  frequency_penalty: float = 0.0
  presence_penalty: float = 0.0
  no_repeat_ngram: int | None = None
  logit_bias: Mapping[int, float] | None = None
  allowed: Sequence[int] | None = None

  def check(self) -> Iterator[str]:
    if not 0 < self.repetition_penalty < math.inf:
      yield f'repetition_penalty={self.repetition_penalty} is not one. Expected more than 0: 1 is none, 1.2 is usual.'
    for name in ('frequency_penalty', 'presence_penalty'):
      if not math.isfinite(getattr(self, name)):
        yield f'{name}={getattr(self, name)} is no number to take off a logit.'
    if self.no_repeat_ngram is not None and self.no_repeat_ngram < 1:
      yield f'no_repeat_ngram={self.no_repeat_ngram} is no number of tokens. Expected at least 1, or None.'
    for token, bias in (self.logit_bias or {}).items():
      if math.isnan(bias) or bias == math.inf:
        yield f'logit_bias[{token}]={bias} cannot be added to a logit. Expected a number, or -inf to forbid the token.'

  def prices(self) -> dict[str, jax.Array]:
    """The penalties in use, as arrays: compiled again when one comes or goes, not when it changes."""
    found: dict[str, jax.Array] = {}
    if self.repetition_penalty != 1:
      found['repetition'] = jnp.float32(self.repetition_penalty)
    if self.frequency_penalty or self.presence_penalty:
      found['frequency'] = jnp.float32(self.frequency_penalty)
      found['presence'] = jnp.float32(self.presence_penalty)
    if self.no_repeat_ngram is not None:
      found['ngram'] = jnp.int32(self.no_repeat_ngram)
    return found


def penalized(
  logits_BV: jax.Array,
  said_BS: jax.Array,
  new_BS: jax.Array,
  end_B: jax.Array,
  prices: dict[str, jax.Array],
) -> jax.Array:
  """The logits of the token at place `end` of each row, given the tokens before it.

  `said_BS` holds a row's tokens at consecutive places before `end_B` (`NOTHING` before the first);
  `new_BS` marks those that are no prompt. What stands from `end_B` on is not looked at."""
  V = logits_BV.shape[1]
  said_BS = jnp.where(jnp.arange(said_BS.shape[1])[None] < end_B[:, None], said_BS, NOTHING)
  if 'repetition' in prices:
    seen_BV = _counts(said_BS, V) > 0
    factor_BV = jnp.where(logits_BV > 0, 1 / prices['repetition'], prices['repetition'])
    logits_BV = jnp.where(seen_BV, logits_BV * factor_BV, logits_BV)
  if 'frequency' in prices:
    count_BV = _counts(jnp.where(new_BS, said_BS, NOTHING), V)
    logits_BV -= prices['frequency'] * count_BV + prices['presence'] * (count_BV > 0)
  if 'ngram' in prices:
    kept_BV = jnp.where(_again(said_BS, end_B, prices['ngram'], V), -jnp.inf, logits_BV)
    some_B1 = jnp.any(kept_BV > -jnp.inf, axis=-1, keepdims=True)
    logits_BV = jnp.where(some_B1, kept_BV, logits_BV)
  return logits_BV


def _counts(said_BS: jax.Array, V: int) -> jax.Array:
  """How often each row has each token."""
  B = said_BS.shape[0]
  column_BS = jnp.where(said_BS >= 0, said_BS, V)
  return jnp.zeros((B, V), jnp.float32).at[jnp.arange(B)[:, None], column_BS].add(1, mode='drop')


def _again(said_BS: jax.Array, end_B: jax.Array, n: jax.Array, V: int) -> jax.Array:
  """Whether a token would end n tokens that the row has had in this order."""
  place_S = jnp.arange(said_BS.shape[1])

  def also(k, match_BS):
    # The tokens k places before each place, and k places before the end.
    before_BS = jnp.where(place_S[None] >= k, jnp.roll(said_BS, k, axis=1), NOTHING)
    last_B1 = jnp.take_along_axis(said_BS, jnp.maximum(end_B - k, 0)[:, None], axis=1)
    return match_BS & (before_BS == last_B1) & (before_BS >= 0)

  match_BS = jax.lax.fori_loop(1, n, also, said_BS >= 0)
  return _counts(jnp.where(match_BS, said_BS, NOTHING), V) > 0
