"""A contiguous cache with one slot for every token."""

import dataclasses

import jax.numpy as jnp

from tfm.parts.cache.base import (
  Cache,
  empty_info,
  head_major,
  mask_from,
  nbytes,
  scatter_tokens,
  select_sequences,
  slot_numbers,
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
    empty = {name: head_major(a) for name, a in zeros(arrays, (B, S)).items()}
    return {'arrays': empty, 'info': empty_info((B, S), extras)}

  def write(self, store, new, info, count_B, lookback):
    number_BT, count_B = slot_numbers(info, count_B)
    store = scatter_tokens(
      store, {'arrays': new, 'info': with_stored_extras(info, store['info'])}, number_BT
    )
    number_BS = jnp.broadcast_to(
      jnp.arange(store['info'].positions.shape[1])[None], store['info'].positions.shape
    )
    return token_major(store['arrays'], new), mask_from(store['info'], number_BS, count_B), store

  def select(self, store, index_B):
    return select_sequences(store, index_B)

  def bytes(self, arrays, S, lookback):
    return S * nbytes(arrays)
