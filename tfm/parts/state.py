"""The decoding state of a layer: cached entries per token and arrays per sequence.

The cache of a layer is `{'tokens': store or None, 'rows': {name: [B, ...]}}`. If it has the key
`history` (see `tfm.model.cache.with_history`), a call also returns the `rows` state after each of
its tokens, so that the sequence can be rewound.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

#: The state entry with the segment id of the last token of each sequence, 0 before the first.
SEGMENT = 'segment'


class Slot(NamedTuple):
  """One array of the decoding state of a layer.

  Attributes:
    shape: the shape without the batch and time axes.
    dtype: the dtype; None: the dtype of the cache.
    per: 'token' for an entry per token, which the `Cache` part stores; 'row' for one array `[B,
      *shape]` per sequence, which each call replaces.
  """

  shape: tuple[int, ...]
  dtype: DTypeLike | None = None
  per: Literal['token', 'row'] = 'token'


class Documents(NamedTuple):
  """The documents that the tokens of a call belong to. All arrays are `[B, T]`.

  Attributes:
    real: bool, False for padding.
    starts: bool, True for the first token of a document, unless an earlier call started it.
    number: int32, the number of documents that have started in this call. Tokens with 0 continue
      the earlier state.
    segment: int32, the segment id of the last real token up to this one.
  """

  real: jax.Array
  starts: jax.Array
  number: jax.Array
  segment: jax.Array


def documents(segment_BT: jax.Array, last_B: jax.Array) -> Documents:
  """Find the document boundaries of a call.

  Args:
    segment_BT: segment ids of the tokens; 0 is padding.
    last_B: the segment id of the last token before this call, 0 if there is none.
  """
  real_BT, T = segment_BT > 0, segment_BT.shape[1]
  place_BT = jnp.where(real_BT, jnp.arange(1, T + 1, dtype=jnp.int32)[None], 0)
  latest_BT = jax.lax.cummax(place_BT, axis=1)
  with_last = jnp.concatenate([last_B[:, None], segment_BT.astype(jnp.int32)], axis=1)
  filled_BT = jnp.take_along_axis(with_last, latest_BT, axis=1)
  before_BT = jnp.concatenate([last_B[:, None], filled_BT[:, :-1]], axis=1)
  starts_BT = real_BT & (filled_BT != before_BT)
  return Documents(real_BT, starts_BT, jnp.cumsum(starts_BT, axis=1, dtype=jnp.int32), filled_BT)


def row_state(slots: dict[str, Slot], cache: Any, B: int) -> dict[str, jax.Array]:
  """Return the per-sequence state in a layer's cache, or zeros without a cache.

  Args:
    slots: the state of the layer, by name.
    cache: the layer's cache, or None.
    B: the batch size.

  Returns:
    Arrays `[B, ...]` by name.
  """
  if cache is not None:
    return cache['rows']
  return {
    name: jnp.zeros((B, *slot.shape), slot.dtype)
    for name, slot in slots.items()
    if slot.per == 'row'
  }


def with_state(
  cache: Any,
  rows: dict[str, jax.Array],
  each: Callable[[], dict[str, jax.Array]],
  real_BT: jax.Array,
) -> Any:
  """Return a layer's cache with new per-sequence state; None stays None.

  Args:
    cache: the layer's cache before the call, or None.
    rows: the state after the call, `[B, ...]` by name.
    each: returns the state after each token, `[B, T, ...]`. It is called only if the cache has the
      key `history`.
    real_BT: False for padding.

  Returns:
    The new cache, with `history` if the old one had it.
  """
  if cache is None:
    return None
  old = cache['rows']
  new = cache | {'rows': {name: a.astype(old[name].dtype) for name, a in rows.items()}}
  if 'history' not in cache:
    return new
  joined = lambda name, a: jnp.concatenate([old[name][:, None], a.astype(old[name].dtype)], axis=1)
  return new | {
    'history': {'real': real_BT, 'rows': {name: joined(name, a) for name, a in each().items()}}
  }


def cut_back(cache: Any, back_B: jax.Array) -> Any:
  """Return a layer's cache rewound by `back_B` real tokens, without `history`.

  A cache without `history` is returned as is.
  """
  if 'history' not in cache:
    return cache
  history = cache['history']
  count_BT = jnp.cumsum(history['real'], axis=1, dtype=jnp.int32)
  kept_B1 = jnp.maximum(count_BT[:, -1] - back_B, 0)[:, None]
  # Entry 0 is the state before the call, entry t + 1 that after the token at t.
  index_B = jnp.where(kept_B1[:, 0] > 0, jnp.sum(count_BT < kept_B1, axis=1) + 1, 0)
  rows = {name: jax.vmap(lambda a, i: a[i])(a, index_B) for name, a in history['rows'].items()}
  return {'tokens': cache['tokens'], 'rows': rows}
