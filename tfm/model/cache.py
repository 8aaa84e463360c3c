"""Caches for decoding: one of each mixer's own, stacked over a segment's repeats; and cutting them back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache
from tfm.parts.cache.paged import spread


def init_cache(
  spec: Model, batch: int, slots: int, dtype: Any = jnp.float32, source: int = 0, kind: Cache = DenseCache()
) -> dict[str, Any]:
  """A cache for `batch` rows of at most `slots` tokens (an encoder-decoder's `source` is the encoder's length).

  `slot` is how many tokens each row holds (padding is not kept), `next` its next position, `layers` the caches by
  segment and block. `kind` is that of the `Run` it is applied with. The caller keeps slot + new tokens <= slots: a
  jitted call cannot check it.

  *Raises*: UserError if a learned position table has fewer rows than `slots`.
  """
  if any(segment.resample is not None for segment in spec.segments):
    raise errors.UserError('cache: a segment of the model changes the length of the sequence. Expected resample=none.')
  limit = spec.max_positions
  if limit is not None and slots > limit:
    raise errors.UserError(f'cache: {slots} slots exceed the {limit} rows of the position table.')
  layers = []
  width = spec.d_model
  for segment in spec.segments:
    width = segment.d_model or width
    pattern = []
    for block in segment.pattern:
      one = {} if block.mixer is None else {'mixer': block.mixer.init_cache(width, batch, slots, dtype, kind)}
      if block.cross is not None:
        one['cross'] = block.cross.init_cache(width, batch, source, dtype)
      pattern.append(one)
    repeat = lambda a, n=segment.repeats: jnp.repeat(a[None], n, axis=0)
    layers.append(jax.tree.map(repeat, pattern))
  return {'slot': jnp.zeros((batch,), jnp.int32), 'next': jnp.zeros((batch,), jnp.int32), 'layers': layers}


def rewind(cache: dict[str, Any], slot_B: jax.Array) -> dict[str, Any]:
  """The cache when its rows held `slot_B` tokens, int32 `[B]`: each row forgets its last so many on its own.

  Nothing is copied: tokens from `slot_B` on are out of sight, and the next ones take their places. For rows whose
  last tokens stood at consecutive positions, which is what `apply` gives them. Speculative decoding: feed the draft,
  then `rewind(cache, before['slot'] + accepted_B)`.

  A ring can be cut back by at most its `margin` of tokens; the caller keeps to it.
  """
  return cache | {'slot': slot_B, 'next': cache['next'] - (cache['slot'] - slot_B)}


def rows(cache: dict[str, Any], kind: Cache, index_B: jax.Array, cross: bool = True) -> dict[str, Any]:
  """A cache whose row i is row `index_B[i]` of this one: copies for several samples, or beams in a new order.

  Without `cross`, what was read of an encoder stays where it is: rows then change places with rows of the same source,
  which may share what they hold.
  """
  if cross:
    return _moved(cache, index_B, lambda store: kind.rows(store, index_B), cross)
  count_B = cache['slot'][index_B]
  return _moved(cache, index_B, lambda store: kind.follow(store, index_B, count_B), cross)


def fanned(cache: dict[str, Any], index_B: jax.Array, origin: jax.Array, table: jax.Array) -> dict[str, Any]:
  """`rows` of a cache in blocks which share them: of a pool with copies of blocks `origin`, row i has `table[i]`."""
  return _moved(cache, index_B, lambda store: spread(store, origin, table), cross=True)


def _moved(cache: dict[str, Any], index_B: jax.Array, move: Callable[[Any], Any], cross: bool) -> dict[str, Any]:
  gather = lambda tree: jax.tree.map(lambda a: a[index_B], tree)

  def one(layer):
    kept = [{'mixer': move(block['mixer'])} if 'mixer' in block else {} for block in layer]
    for new, block in zip(kept, layer, strict=True):
      if 'cross' in block:
        new['cross'] = gather(block['cross']) if cross else block['cross']
    return kept

  # A segment's layers are stacked, or laid out one by one.
  layers = [tuple(map(one, s)) if isinstance(s, tuple) else jax.vmap(one)(s) for s in cache['layers']]
  return {**gather({'slot': cache['slot'], 'next': cache['next']}), 'layers': layers}
