"""Penalties for repetition, logit biases, and restricted vocabularies."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math

import jax
import jax.numpy as jnp

#: Marks a place without a token in an array of token ids.
NOTHING = -1


@dataclasses.dataclass(frozen=True)
class Penalties:
  """Changes to the logits before a token is sampled. The defaults change nothing.

  Attributes:
    repetition_penalty: For tokens of the sequence (prompt or new), divides positive logits and
      multiplies negative ones (arXiv:1909.05858).
    frequency_penalty: Subtracted once per occurrence of a token among the new tokens.
    presence_penalty: Subtracted once if a token is among the new tokens.
    no_repeat_ngram: n, to never generate an n-gram that the sequence already contains (unless every
      token would be forbidden). None: no limit.
    logit_bias: Added to the logits of some ids. -inf forbids an id.
    allowed: The only ids to sample from, including `eos` if sequences may end. None: all.
  """

  repetition_penalty: float = 1.0
  frequency_penalty: float = 0.0
  presence_penalty: float = 0.0
  no_repeat_ngram: int | None = None
  logit_bias: Mapping[int, float] | None = None
  allowed: Sequence[int] | None = None

  def check(self) -> Iterator[str]:
    if not 0 < self.repetition_penalty < math.inf:
      yield (
        f'repetition_penalty={self.repetition_penalty} is out of range. '
        'Expected more than 0: 1 for none, usually up to 1.2.'
      )
    for name in ('frequency_penalty', 'presence_penalty'):
      if not math.isfinite(getattr(self, name)):
        yield f'{name}={getattr(self, name)} is not finite. Expected a number, 0 for none.'
    if self.no_repeat_ngram is not None and self.no_repeat_ngram < 1:
      yield f'no_repeat_ngram={self.no_repeat_ngram} is too small. Expected at least 1, or None.'
    for token, bias in (self.logit_bias or {}).items():
      if math.isnan(bias) or bias == math.inf:
        yield (
          f'logit_bias[{token}]={bias} is not a bias. '
          'Expected a number, or -inf to forbid the token.'
        )

  def penalty_values(self) -> dict[str, jax.Array]:
    """Return the values of the penalties in use, as arrays.

    A jitted function is compiled again when a penalty is added or removed, not when its value
    changes.
    """
    values: dict[str, jax.Array] = {}
    if self.repetition_penalty != 1:
      values['repetition'] = jnp.float32(self.repetition_penalty)
    if self.frequency_penalty or self.presence_penalty:
      values['frequency'] = jnp.float32(self.frequency_penalty)
      values['presence'] = jnp.float32(self.presence_penalty)
    if self.no_repeat_ngram is not None:
      values['ngram'] = jnp.int32(self.no_repeat_ngram)
    return values


def apply_penalties(
  logits_BV: jax.Array,
  tokens_BS: jax.Array,
  new_BS: jax.Array,
  end_B: jax.Array,
  values: dict[str, jax.Array],
) -> jax.Array:
  """Return the penalised logits of the token at index `end_B` of each sequence.

  Args:
    logits_BV: Logits `[B, V]`.
    tokens_BS: The tokens of each sequence, without gaps before `end_B` (`NOTHING` before the
      first). Entries from `end_B` on are ignored.
    new_BS: True for new tokens, False for the prompt.
    end_B: The index of the token to sample, int32 `[B]`.
    values: From `Penalties.penalty_values`.

  Returns:
    Logits `[B, V]`.
  """
  V = logits_BV.shape[1]
  tokens_BS = jnp.where(jnp.arange(tokens_BS.shape[1])[None] < end_B[:, None], tokens_BS, NOTHING)
  if 'repetition' in values:
    seen_BV = _counts(tokens_BS, V) > 0
    factor_BV = jnp.where(logits_BV > 0, 1 / values['repetition'], values['repetition'])
    logits_BV = jnp.where(seen_BV, logits_BV * factor_BV, logits_BV)
  if 'frequency' in values:
    count_BV = _counts(jnp.where(new_BS, tokens_BS, NOTHING), V)
    logits_BV -= values['frequency'] * count_BV + values['presence'] * (count_BV > 0)
  if 'ngram' in values:
    repeats_BV = _repeats_ngram(tokens_BS, end_B, values['ngram'], V)
    kept_BV = jnp.where(repeats_BV, -jnp.inf, logits_BV)
    some_B1 = jnp.any(kept_BV > -jnp.inf, axis=-1, keepdims=True)
    logits_BV = jnp.where(some_B1, kept_BV, logits_BV)
  return logits_BV


def _counts(tokens_BS: jax.Array, V: int) -> jax.Array:
  """Return the number of occurrences of each token in each sequence, float32 `[B, V]`."""
  B = tokens_BS.shape[0]
  column_BS = jnp.where(tokens_BS >= 0, tokens_BS, V)
  return jnp.zeros((B, V), jnp.float32).at[jnp.arange(B)[:, None], column_BS].add(1, mode='drop')


def _repeats_ngram(tokens_BS: jax.Array, end_B: jax.Array, n: jax.Array, V: int) -> jax.Array:
  """Return whether each next token would repeat an n-gram of the sequence, bool `[B, V]`."""
  place_S = jnp.arange(tokens_BS.shape[1])

  def match_one_more(k: jax.Array, match_BS: jax.Array) -> jax.Array:
    # Compares the token k before each place with the token k before the end.
    before_BS = jnp.where(place_S[None] >= k, jnp.roll(tokens_BS, k, axis=1), NOTHING)
    last_B1 = jnp.take_along_axis(tokens_BS, jnp.maximum(end_B - k, 0)[:, None], axis=1)
    return match_BS & (before_BS == last_B1) & (before_BS >= 0)

  # No n-gram longer than the sequence matches, so further rounds change nothing.
  rounds = jnp.minimum(n, len(place_S) + 1)
  match_BS = jax.lax.fori_loop(1, rounds, match_one_more, tokens_BS >= 0)
  return _counts(jnp.where(match_BS, tokens_BS, NOTHING), V) > 0
