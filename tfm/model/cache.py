"""Decoding caches: the state of each mixer, stacked over the repeats of a segment.

A layer has entries per token, stored by the cache kind (dense, ring, paged, int8), and recurrent
states: arrays of a fixed size per sequence, under the key 'rows'.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tfm.core import errors
from tfm.model.spec import Block, Model, blocks_with_width
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache
from tfm.parts.cache.paged import regroup
from tfm.parts.state import cut_back


def init_cache(
  spec: Model,
  batch: int,
  slots: int,
  dtype: DTypeLike = jnp.float32,
  source: int = 0,
  kind: Cache = DenseCache(),
) -> dict[str, Any]:
  """Return an empty cache.

  Args:
    spec: The model.
    batch: The number of sequences.
    slots: The most tokens per sequence, including new ones. A jitted call cannot check that it is
      not exceeded.
    dtype: The dtype of keys and values.
    source: The length of the encoder output, for an encoder-decoder.
    kind: The kind of cache; the same as in the `Run` that it is used with.

  Returns:
    A dict with `slot`, the number of tokens of each sequence (without padding), int32 `[batch]`;
    `next`, its next position, int32 `[batch]`; and `layers`, the caches by segment and block.

  Raises:
    UserError: if a learned position table has fewer entries than `slots`, or a segment resamples.
  """
  if any(segment.resample is not None for segment in spec.segments):
    raise errors.UserError(
      'cache: a segment of the model changes the length of the sequence. Expected resample=none.'
    )
  limit = spec.max_positions
  if limit is not None and slots > limit:
    raise errors.UserError(
      f'cache: slots={slots} exceeds the position table. Expected at most {limit}.'
    )
  layers = []
  width = spec.d_model
  for segment in spec.segments:
    width = segment.d_model or width
    pattern = [
      _init_block(block, width, batch, slots, dtype, source, kind) for block in segment.pattern
    ]
    repeat = lambda a, n=segment.repeats: jnp.repeat(a[None], n, axis=0)
    layers.append(jax.tree.map(repeat, pattern))
  return {
    'slot': jnp.zeros((batch,), jnp.int32),
    'next': jnp.zeros((batch,), jnp.int32),
    'layers': layers,
  }


def _init_block(
  block: Block, width: int, batch: int, slots: int, dtype: DTypeLike, source: int, kind: Cache
) -> dict[str, Any]:
  """Return the empty cache of one block."""
  mixer: Any = {'tokens': None, 'rows': {}}
  if block.mixer is not None:
    mixer = block.mixer.init_cache(width, batch, slots, dtype, kind)
  if block.cross is None:
    return {'mixer': mixer}
  return {'mixer': mixer, 'cross': block.cross.init_cache(width, batch, source, dtype)}


def cache_letters(cache: dict[str, Any]) -> dict[str, Any]:
  """Return the axis letters of the arrays of a cache, as sharding rules need them.

  The axis of sequences is 'B', in a paged cache that of blocks. The axis of key/value heads is 'K'.
  Other axes are '-', which no rule splits.

  Args:
    cache: The cache of `init_cache`, or its shapes, with stacked layers.

  Returns:
    A tree of the same structure.
  """

  def letters(path: Any, array: Any) -> str:
    names = [getattr(key, 'key', getattr(key, 'name', None)) for key in path]
    by_head = 'arrays' in names and array.ndim > 4  # [L, B, K, S, ...]
    return ('LBK' if by_head else 'LB').ljust(array.ndim, '-')

  layers = jax.tree.map_with_path(letters, cache['layers'])
  return {'slot': 'B', 'next': 'B', 'layers': layers}


def has_state(spec: Model, per: Literal['token', 'row']) -> bool:
  """Return whether some layer has entries per token, or recurrent states ('row')."""
  for *_, block, width in blocks_with_width(spec):
    if block.mixer is None:
      continue
    if any(slot.per == per for slot in block.mixer.state(width).values()):
      return True
  return False


def with_history(cache: dict[str, Any]) -> dict[str, Any]:
  """Return a cache for which the next `apply` also records recurrent states, for `rewind`.

  A call with T tokens then stores T + 1 recurrent states. Models without recurrent states record
  nothing.
  """

  def one(block: dict[str, Any]) -> dict[str, Any]:
    history: dict[str, Any] = {'history': {}} if block['mixer']['rows'] else {}
    return block | {'mixer': block['mixer'] | history}

  return cache | {'layers': _map_blocks(cache, one)}


def recurrent_states(cache: dict[str, Any]) -> list[Any]:
  """Return the recurrent states of all layers, `[L, B, ...]` or, if unstacked, `[B, ...]`."""
  return _map_blocks(cache, lambda block: block['mixer']['rows'])


def rewind(
  cache: dict[str, Any], slot_B: jax.Array, states: list[Any] | None = None
) -> dict[str, Any]:
  """Return the cache with only the first `slot_B` tokens of each sequence.

  Token entries are not copied: entries from `slot_B` on are masked out, and the next tokens
  overwrite them. Recurrent states are selected from the history of the last call, so all dropped
  tokens must belong to that call. Dropped tokens must have consecutive positions, the default of
  `apply`. A ring can be rewound by at most its `margin` of tokens; this is not checked.

  Args:
    cache: The cache after a call with `with_history(cache)`; without recurrent states, after any
      call.
    slot_B: int32 `[B]`, the number of tokens that each sequence keeps.
    states: For tokens processed in calls of one token: `recurrent_states` before the first call and
      after each, stacked on a leading axis. Default: the history in `cache`.

  Returns:
    The rewound cache.

  Raises:
    UserError: if the model has recurrent states, and neither a history nor `states` is given.
  """
  back_B = cache['slot'] - slot_B
  if states is not None:
    layers = _states_at(cache, states, back_B)
  else:
    known = lambda mixer: not mixer['rows'] or bool(mixer.get('history'))
    if not all(jax.tree.leaves(_map_blocks(cache, lambda block: known(block['mixer'])))):
      raise errors.UserError(
        'rewind: the cache has no recurrent states of earlier tokens. '
        'Expected a cache that was passed to apply as with_history(cache).'
      )
    layers = _map_layers(cache, lambda block: block | {'mixer': cut_back(block['mixer'], back_B)})
  return cache | {'slot': slot_B, 'next': cache['next'] - back_B, 'layers': layers}


def _states_at(cache: dict[str, Any], states: list[Any], back_B: jax.Array) -> list[Any]:
  """Return the layers with the recurrent states before the last `back_B` tokens."""

  def segment(layers: Any, states: Any) -> Any:
    batch = 1 if isinstance(layers, tuple) else 2
    at = lambda a: jax.vmap(lambda a, back: a[len(a) - 1 - back], (batch, 0), batch - 1)(a, back_B)
    put = lambda layer, rows: [
      b | {'mixer': b['mixer'] | {'rows': r}} for b, r in zip(layer, rows, strict=True)
    ]
    chosen = jax.tree.map(at, states)
    return tuple(map(put, layers, chosen)) if isinstance(layers, tuple) else put(layers, chosen)

  return list(map(segment, cache['layers'], states))


def select_sequences(
  cache: dict[str, Any], kind: Cache, index_B: jax.Array, cross: bool = True
) -> dict[str, Any]:
  """Return a cache with sequence `index_B[i]` of this one at index i.

  It copies sequences for several samples of a prompt, or reorders beams.

  Args:
    cache: A cache.
    kind: Its kind.
    index_B: int32 `[B]`, for a new batch size B.
    cross: Whether to select the cross-attention cache too. Without it, sequences must only be
      exchanged with sequences of the same encoder input; they may then share blocks.

  Returns:
    The new cache.
  """
  if cross:
    return _map_stores(cache, index_B, lambda store: kind.select(store, index_B), cross)
  count_B = cache['slot'][index_B]
  return _map_stores(cache, index_B, lambda store: kind.follow(store, index_B, count_B), cross)


def expand_blocks(
  cache: dict[str, Any], index_B: jax.Array, source: jax.Array, table: jax.Array
) -> dict[str, Any]:
  """Return a paged cache for sequences that share the blocks of their prompts.

  Args:
    cache: A paged cache, one sequence per prompt.
    index_B: The sequence of `cache` that each new sequence continues.
    source: For each block of the new pool, the block of `cache` that it is copied from.
    table: The block table of the new sequences.

  Returns:
    The new cache.
  """
  return _map_stores(cache, index_B, lambda store: regroup(store, source, table), cross=True)


def _map_stores(
  cache: dict[str, Any], index_B: jax.Array, move: Callable[[Any], Any], cross: bool
) -> dict[str, Any]:
  gather = lambda tree: jax.tree.map(lambda a: a[index_B], tree)

  def one(block: dict[str, Any]) -> dict[str, Any]:
    tokens, states = block['mixer']['tokens'], gather(block['mixer']['rows'])
    new = {'mixer': {'tokens': None if tokens is None else move(tokens), 'rows': states}}
    if 'cross' in block:
      new['cross'] = gather(block['cross']) if cross else block['cross']
    return new

  counts = gather({'slot': cache['slot'], 'next': cache['next']})
  return {**counts, 'layers': _map_layers(cache, one)}


def _map_blocks(cache: dict[str, Any], one: Callable[[dict[str, Any]], Any]) -> list[Any]:
  """Apply `one` to the cache of each block, with all layers of a segment stacked if they are."""

  layer = lambda blocks: [one(block) for block in blocks]

  def segment(layers: Any) -> Any:
    return tuple(map(layer, layers)) if isinstance(layers, tuple) else layer(layers)

  return [segment(layers) for layers in cache['layers']]


def _map_layers(cache: dict[str, Any], one: Callable[[dict[str, Any]], Any]) -> list[Any]:
  """Apply `one` to the cache of each block of each layer separately."""
  layer = lambda blocks: [one(block) for block in blocks]

  def segment(layers: Any) -> Any:
    if isinstance(layers, tuple):
      return tuple(map(layer, layers))
    return jax.vmap(layer)(layers) if jax.tree.leaves(layers) else layers

  return [segment(layers) for layers in cache['layers']]
