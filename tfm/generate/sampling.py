"""Sampling filters: temperature, top-k, top-p and min-p, in this order, as in `transformers`."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.cpu import argmax as cpu


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a token is sampled from its logits. None disables a filter.

  Each filter works on the tokens that the previous one kept.

  Attributes:
    temperature: Divides the logits. 0: greedy decoding.
    top_k: Keep the k most probable tokens.
    top_p: Keep the fewest most probable tokens with total probability >= p (arXiv:1904.09751).
    min_p: Keep tokens with probability >= p times the top probability (arXiv:2407.01082).
  """

  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None

  def check(self) -> Iterator[str]:
    if not 0 <= self.temperature < float('inf'):
      yield (
        f'temperature={self.temperature} is out of range. '
        'Expected 0 (greedy) or more, usually 0.6 to 1.2.'
      )
    if self.top_k is not None and self.top_k < 1:
      yield f'top_k={self.top_k} keeps no token. Expected at least 1, or None for all of them.'
    if self.top_p is not None and not 0 < self.top_p <= 1:
      yield (
        f'top_p={self.top_p} is not a probability. Expected more than 0 and at most 1, or None.'
      )
    if self.min_p is not None and not 0 <= self.min_p <= 1:
      yield f'min_p={self.min_p} is not a share of the top probability. Expected 0 to 1, or None.'

  def sampling_values(self) -> dict[str, jax.Array]:
    """Return the values of the filters in use, as arrays; {} for greedy decoding.

    A jitted function is compiled again when a filter is added or removed, not when its value
    changes.
    """
    if self.temperature == 0:
      return {}
    values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Sampling)}
    return {
      name: jnp.asarray(value, jnp.float32) for name, value in values.items() if value is not None
    }


def sample(logits_BV: jax.Array, keys_B: jax.Array, values: dict[str, jax.Array]) -> jax.Array:
  """Sample a token for each sequence with its own key.

  Args:
    logits_BV: Logits `[B, V]`.
    keys_B: Random keys `[B]`.
    values: From `Sampling.sampling_values`. Empty: the most probable token.

  Returns:
    Token ids, int32 `[B]`.
  """
  if not values:
    return jax.lax.platform_dependent(logits_BV, cpu=cpu.argmax, default=_argmax)
  draw = jax.vmap(jax.random.categorical)
  return draw(keys_B, warp(logits_BV, values)).astype(jnp.int32)


def warp(logits_BV: jax.Array, values: dict[str, jax.Array]) -> jax.Array:
  """Return logits / temperature in float32, with -inf for tokens that a filter removes."""
  logits_BV = logits_BV.astype(jnp.float32) / values['temperature']
  if 'top_k' in values:
    logits_BV = _largest(logits_BV, jnp.ones_like(logits_BV), values['top_k'])
  if 'top_p' in values:
    logits_BV = _largest(logits_BV, jax.nn.softmax(logits_BV, axis=-1), values['top_p'])
  if 'min_p' in values:
    top_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    logits_BV = jnp.where(logits_BV >= top_B1 + jnp.log(values['min_p']), logits_BV, -jnp.inf)
  return logits_BV


def _largest(x_BV: jax.Array, mass_BV: jax.Array, limit: jax.Array) -> jax.Array:
  """Keep x where the total mass of all larger x is less than `limit`, else -inf.

  Equal values are kept or removed together. A binary search over the bits finds the threshold in 32
  passes, because sorting a vocabulary takes longer than a layer.
  """
  code_BV = _ordered(x_BV)

  def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    # Invariant: the mass above `low` is at least the limit, the mass above `high` is less.
    low_B1, high_B1 = bounds
    middle_B1 = (low_B1 & high_B1) + ((low_B1 ^ high_B1) >> 1)  # the mean, without overflow
    above_B1 = jnp.sum(jnp.where(code_BV > middle_B1, mass_BV, 0), axis=-1, keepdims=True)
    enough = above_B1 >= limit
    return jnp.where(enough, middle_B1, low_B1), jnp.where(enough, high_B1, middle_B1)

  shape, ends = (*x_BV.shape[:-1], 1), jnp.iinfo(jnp.int32)
  start = (jnp.full(shape, ends.min, jnp.int32), jnp.full(shape, ends.max, jnp.int32))
  _, threshold_B1 = jax.lax.fori_loop(0, 32, halve, start)
  return jnp.where(code_BV >= threshold_B1, x_BV, -jnp.inf)


def _ordered(x: jax.Array) -> jax.Array:
  """Return int32 codes with the order of float32 values, from their bits."""
  nonnegative_zero = jnp.where(x == 0, 0.0, x)  # -0.0 equals 0.0, so it gets the same code
  bits = jax.lax.bitcast_convert_type(nonnegative_zero, jnp.int32)
  return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def _argmax(logits_BV: jax.Array) -> jax.Array:
  return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
