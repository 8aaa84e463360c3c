"""A contiguous cache with one slot for every token."""

import dataclasses

import jax.numpy as jnp

from tfm.parts.cache.base import (
  Cache,
  empty_info,
  mask_from,
  nbytes,
  of_layer,
  scatter_tokens,
  select_sequences,
  slot_numbers,
  swap_heads,
  token_major,
  with_stored_extras,
  zeros,
)


@dataclasses.dataclass(frozen=True)
class DenseCache(Cache):
  """A contiguous cache: token n of a sequence is in slot n.

  Keys and values take 2 K H numbers per slot and layer.
  """

  def init(self, arrays, B, S, lookback, extras):
    empty = {name: swap_heads(a) for name, a in zeros(arrays, (B, S)).items()}
    return {'arrays': empty, 'info': empty_info((B, S), extras)}

  def write(self, store, new, info, count_B, lookback):
    number_BT, count_B = slot_numbers(info, count_B)
    extras = with_stored_extras(info, of_layer(store)['info'])
    store = scatter_tokens(store, {'arrays': new, 'info': extras}, number_BT)
    stored = of_layer(store)
    shape = stored['info'].positions.shape
    number_BS = jnp.broadcast_to(jnp.arange(shape[1])[None], shape)
    return token_major(stored['arrays'], new), mask_from(stored['info'], number_BS, count_B), store

  @property
  def in_place(self):
    return True

  def select(self, store, index_B):
    return select_sequences(store, index_B)

  def bytes(self, arrays, S, lookback):
    return S * nbytes(arrays)
