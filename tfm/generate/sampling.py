"""The next token from its logits: temperature, top-k, top-p and min-p, in this order, as in
`transformers`.
"""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a token is drawn. `temperature=0` takes the likeliest one; `None` leaves a filter out.

  `top_k` keeps the k likeliest tokens, `top_p` the fewest likeliest whose mass reaches p
  (arXiv:1904.09751), `min_p` those at least p times as likely as the likeliest (arXiv:2407.01082);
  each sees what the one before it left."""

  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None

  def check(self) -> Iterator[str]:
    if not 0 <= self.temperature < float('inf'):
      yield f'temperature={self.temperature} is not one. Expected 0 (the likeliest token) or more, usually 0.6 to 1.2.'
    if self.top_k is not None and self.top_k < 1:
      yield f'top_k={self.top_k} keeps no token. Expected at least 1, or None for all of them.'
    if self.top_p is not None and not 0 < self.top_p <= 1:
      yield f'top_p={self.top_p} is not a share of the probability. Expected more than 0 and at most 1, or None.'
    if self.min_p is not None and not 0 <= self.min_p <= 1:
      yield f'min_p={self.min_p} is not a share of the top probability. Expected 0 to 1, or None.'

  def knobs(self) -> dict[str, jax.Array]:
    """The values in use, as arrays: a jitted `sample` is compiled again when one comes or goes, not
    when it changes.
    """
    if self.temperature == 0:
      return {}
    values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Sampling)}
    return {
      name: jnp.asarray(value, jnp.float32) for name, value in values.items() if value is not None
    }


def sample(logits_BV: jax.Array, keys_B: jax.Array, knobs: dict[str, jax.Array]) -> jax.Array:
  """A token for each row, int32 `[B]`, drawn with the row's own key; the likeliest one if there are
  no knobs.
  """
  if not knobs:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  draw = jax.vmap(jax.random.categorical)
  return draw(keys_B, warp(logits_BV, knobs)).astype(jnp.int32)


def warp(logits_BV: jax.Array, knobs: dict[str, jax.Array]) -> jax.Array:
  """logits / temperature in float32, -inf for the tokens that the filters leave out."""
  logits_BV = logits_BV.astype(jnp.float32) / knobs['temperature']
  if 'top_k' in knobs:
    logits_BV = _largest(logits_BV, jnp.ones_like(logits_BV), knobs['top_k'])
  if 'top_p' in knobs:
    logits_BV = _largest(logits_BV, jax.nn.softmax(logits_BV, axis=-1), knobs['top_p'])
  if 'min_p' in knobs:
    top_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    logits_BV = jnp.where(logits_BV >= top_B1 + jnp.log(knobs['min_p']), logits_BV, -jnp.inf)
  return logits_BV


def _largest(x_BV: jax.Array, mass_BV: jax.Array, limit: jax.Array) -> jax.Array:
  """x where the mass of all larger x is less than `limit`, else -inf. Equal numbers stay or go
  together.

  *Cost*: 32 passes over x. The threshold is found bit by bit, because sorting a vocabulary takes
  longer than a layer."""
  code_BV = _ordered(x_BV)

  def halve(_, bounds):
    # The mass above `low` is at least the limit (or low is below every code), the mass above `high`
    # is less.
    low_B1, high_B1 = bounds
    middle_B1 = (low_B1 & high_B1) + ((low_B1 ^ high_B1) >> 1)  # an average that cannot overflow
    above_B1 = jnp.sum(jnp.where(code_BV > middle_B1, mass_BV, 0), axis=-1, keepdims=True)
    enough = above_B1 >= limit
    return jnp.where(enough, middle_B1, low_B1), jnp.where(enough, high_B1, middle_B1)

  shape, ends = (*x_BV.shape[:-1], 1), jnp.iinfo(jnp.int32)
  start = (jnp.full(shape, ends.min, jnp.int32), jnp.full(shape, ends.max, jnp.int32))
  _, threshold_B1 = jax.lax.fori_loop(0, 32, halve, start)
  return jnp.where(code_BV >= threshold_B1, x_BV, -jnp.inf)


def _ordered(x: jax.Array) -> jax.Array:
  """int32 codes in the order of the floats x: their bits, those of negative numbers turned round."""
  bits = jax.lax.bitcast_convert_type(
    jnp.where(x == 0, 0.0, x), jnp.int32
  )  # -0.0 equals 0.0 and gets its code
  return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
