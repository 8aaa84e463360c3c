"""A contiguous cache with one slot for every token."""

import dataclasses

import jax.numpy as jnp

from tfm.parts.cache.base import (
  Cache,
  before,
  by_head,
  empty_info,
  like,
  nbytes,
  numbers,
  of_rows,
  put,
  seen,
  zeros,
)


@dataclasses.dataclass(frozen=True)
class DenseCache(Cache):
  """A contiguous cache: token n of a sequence is in slot n.

  Keys and values take 2 K H numbers per slot and layer.
  """

  def init(self, arrays, B, S, lookback, extras):
    empty = {name: by_head(a) for name, a in zeros(arrays, (B, S)).items()}
    return {'arrays': empty, 'info': empty_info((B, S), extras)}

  def write(self, store, new, info, count_B, lookback):
    number_BT, count_B = numbers(info, count_B)
    store = put(store, {'arrays': new, 'info': like(info, store['info'])}, number_BT)
    number_BS = jnp.broadcast_to(
      jnp.arange(store['info'].positions.shape[1])[None], store['info'].positions.shape
    )
    return seen(store['arrays'], new), before(store['info'], number_BS, count_B), store

  def rows(self, store, index_B):
    return of_rows(store, index_B)

  def bytes(self, arrays, S, lookback):
    return S * nbytes(arrays)
