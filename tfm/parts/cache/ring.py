"""A ring buffer for layers with a bounded attention window."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.cache.base import (
  OUT_OF_RANGE,
  Cache,
  mask_from,
  nbytes,
  of_layer,
  scatter_tokens,
  select_sequences,
  slot_numbers,
  token_major,
  with_stored_extras,
)
from tfm.parts.cache.dense import DenseCache


@dataclasses.dataclass(frozen=True)
class RingCache(Cache):
  """A ring buffer: token n is in slot n % R, with R = lookback + `margin`.

  Layers without a bounded `lookback` use a dense cache. A call with up to `margin` tokens writes
  them in place. A longer call attends to a copy of the old slots and its own tokens, and stores
  only its last R tokens.

  Attributes:
    margin: extra slots. Sequences can be rewound by up to `margin` tokens.
  """

  margin: int = 8

  def check(self) -> Iterator[str]:
    if self.margin < 1:
      yield f'margin={self.margin} leaves no slot for new tokens. Expected at least 1.'

  @property
  def in_place(self):
    return True

  @property
  def back(self):
    return self.margin

  def _slots(self, S: int, lookback: int | None) -> int | None:
    """Return R, or None where a dense cache needs no more slots."""
    return None if lookback is None or lookback + self.margin >= S else lookback + self.margin

  def init(self, arrays, B, S, lookback, extras):
    if (R := self._slots(S, lookback)) is None:
      return DenseCache().init(arrays, B, S, lookback, extras)
    return DenseCache().init(arrays, B, R, lookback, extras) | {
      'number': jnp.zeros((B, R), jnp.int32)
    }

  def write(self, store, new, info, count_B, lookback):
    before = of_layer(store)
    if 'number' not in before:
      return DenseCache().write(store, new, info, count_B, lookback)
    R, T = before['info'].positions.shape[1], info.positions.shape[1]
    number_BT, after_B = slot_numbers(info, count_B)
    chunk = {'arrays': new, 'info': with_stored_extras(info, before['info']), 'number': number_BT}
    # Only the last R tokens are stored, so that each slot is written once.
    stays_BT = (number_BT < OUT_OF_RANGE) & (number_BT >= after_B[:, None] - R)
    slot_BT = jnp.where(
      stays_BT, number_BT % R, OUT_OF_RANGE + jnp.arange(T, dtype=jnp.int32)[None]
    )
    store = scatter_tokens(store, chunk, slot_BT)
    if self.margin >= T:
      after = of_layer(store)
      masked = mask_from(after['info'], after['number'], after_B)
      return token_major(after['arrays'], new), masked, store
    old = token_major(before['arrays'], new), mask_from(before['info'], before['number'], count_B)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), old, (new, chunk['info']))
    return *both, store

  def select(self, store, index_B):
    return select_sequences(store, index_B)

  def bytes(self, arrays, S, lookback):
    return (self._slots(S, lookback) or S) * nbytes(arrays)
