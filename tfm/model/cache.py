"""Caches for decoding: the state of each mixer, stacked over a segment's repeats."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.model.spec import Model, placed
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache
from tfm.parts.cache.paged import regroup
from tfm.parts.state import cut_back


def init_cache(
  spec: Model,
  batch: int,
  slots: int,
  dtype: Any = jnp.float32,
  source: int = 0,
  kind: Cache = DenseCache(),
) -> dict[str, Any]:
  """A cache for `batch` rows of at most `slots` tokens (an encoder-decoder's `source` is the
  encoder's length).

  `slot` is how many tokens each row holds (padding is not kept), `next` its next position, `layers`
  the caches by segment and block. `kind` is that of the `Run` it is applied with. The caller keeps
  slot + new tokens <= slots: a jitted call cannot check it.

  *Raises*: UserError if a learned position table has fewer rows than `slots`.
  """
  if any(segment.resample is not None for segment in spec.segments):
    raise errors.UserError(
      'cache: a segment of the model changes the length of the sequence. Expected resample=none.'
    )
  limit = spec.max_positions
  if limit is not None and slots > limit:
    raise errors.UserError(f'cache: {slots} slots exceed the {limit} rows of the position table.')
  layers = []
  width = spec.d_model
  for segment in spec.segments:
    width = segment.d_model or width
    pattern = []
    for block in segment.pattern:
      own: Any = {'tokens': None, 'rows': {}}
      one = {
        'mixer': own
        if block.mixer is None
        else block.mixer.init_cache(width, batch, slots, dtype, kind)
      }
      if block.cross is not None:
        one['cross'] = block.cross.init_cache(width, batch, source, dtype)
      pattern.append(one)
    repeat = lambda a, n=segment.repeats: jnp.repeat(a[None], n, axis=0)
    layers.append(jax.tree.map(repeat, pattern))
  return {
    'slot': jnp.zeros((batch,), jnp.int32),
    'next': jnp.zeros((batch,), jnp.int32),
    'layers': layers,
  }


def keeps(spec: Model, per: Literal['token', 'row']) -> bool:
  """Return whether some layer has state of this kind."""
  slots = (
    slot for *_, block, d in placed(spec) if block.mixer for slot in block.mixer.state(d).values()
  )
  return any(slot.per == per for slot in slots)


def with_history(cache: dict[str, Any]) -> dict[str, Any]:
  """Return a cache for which the next `apply` also records the row states after each token, so that
  it can be rewound.

  *Cost*: T + 1 row states in a call with T tokens. Models without row states record nothing.
  """

  def one(block):
    asked: dict[str, Any] = {'history': {}} if block['mixer']['rows'] else {}
    return block | {'mixer': block['mixer'] | asked}

  return cache | {'layers': _by_block(cache, one)}


def row_states(cache: dict[str, Any]) -> list[Any]:
  """Return the row states of all layers: the leaves are `[L, B, ...]`, or `[B, ...]` for unstacked
  layers.
  """
  return _by_block(cache, lambda block: block['mixer']['rows'])


def rewind(
  cache: dict[str, Any], slot_B: jax.Array, states: list[Any] | None = None
) -> dict[str, Any]:
  """Return the cache with only the first `slot_B` tokens of each row.

  Token entries are not copied: entries from `slot_B` on are masked out, and the next tokens
  overwrite them. Row states are selected from the history of the last call, so all dropped tokens
  must belong to that call. Dropped tokens must have consecutive positions, the default of `apply`.
  A ring can be rewound by at most its `margin` of tokens; this is not checked.

  Args:
    cache: the cache after a call with `with_history(cache)`; without row states, after any call.
    slot_B: int32 `[B]`, the number of tokens that each row keeps.
    states: for tokens fed in calls of one token, `row_states` before the first call and after each,
      stacked on a leading axis. Default: the history in `cache`.

  Raises:
    UserError: if the model has row states, and neither a history nor `states` is given.
  """
  back_B = cache['slot'] - slot_B
  if states is not None:
    layers = _states_at(cache, states, back_B)
  else:
    known = lambda mixer: not mixer['rows'] or bool(mixer.get('history'))
    if not all(jax.tree.leaves(_by_block(cache, lambda block: known(block['mixer'])))):
      raise errors.UserError(
        'rewind: a row state is not kept for earlier tokens. Expected a cache that was passed to '
        'apply as '
        'with_history(cache).'
      )
    layers = _by_layer(cache, lambda block: block | {'mixer': cut_back(block['mixer'], back_B)})
  return cache | {'slot': slot_B, 'next': cache['next'] - back_B, 'layers': layers}


def _states_at(cache: dict[str, Any], states: list[Any], back_B: jax.Array) -> list[Any]:
  """The layers with the row states before the last `back_B` tokens."""

  def segment(layers, states):
    batch = 1 if isinstance(layers, tuple) else 2
    at = lambda a: jax.vmap(lambda a, back: a[len(a) - 1 - back], (batch, 0), batch - 1)(a, back_B)
    put = lambda layer, rows: [
      b | {'mixer': b['mixer'] | {'rows': r}} for b, r in zip(layer, rows, strict=True)
    ]
    chosen = jax.tree.map(at, states)
    return tuple(map(put, layers, chosen)) if isinstance(layers, tuple) else put(layers, chosen)

  return list(map(segment, cache['layers'], states))


def rows(
  cache: dict[str, Any], kind: Cache, index_B: jax.Array, cross: bool = True
) -> dict[str, Any]:
  """A cache whose row i is row `index_B[i]` of this one: copies for several samples, or beams in a
  new order.

  Without `cross`, what was read of an encoder stays where it is: rows then change places with rows
  of the same source, which may share what they hold."""
  if cross:
    return _moved(cache, index_B, lambda store: kind.select(store, index_B), cross)
  count_B = cache['slot'][index_B]
  return _moved(cache, index_B, lambda store: kind.follow(store, index_B, count_B), cross)


def fanned(
  cache: dict[str, Any], index_B: jax.Array, origin: jax.Array, table: jax.Array
) -> dict[str, Any]:
  """`rows` of a cache in blocks which share them: of a pool with copies of blocks `origin`, row i
  has `table[i]`.
  """
  return _moved(cache, index_B, lambda store: regroup(store, origin, table), cross=True)


def _moved(
  cache: dict[str, Any], index_B: jax.Array, move: Callable[[Any], Any], cross: bool
) -> dict[str, Any]:
  gather = lambda tree: jax.tree.map(lambda a: a[index_B], tree)

  def one(block):
    tokens, states = block['mixer']['tokens'], gather(block['mixer']['rows'])
    new = {'mixer': {'tokens': None if tokens is None else move(tokens), 'rows': states}}
    if 'cross' in block:
      new['cross'] = gather(block['cross']) if cross else block['cross']
    return new

  return {**gather({'slot': cache['slot'], 'next': cache['next']}), 'layers': _by_layer(cache, one)}


def _by_block(cache: dict[str, Any], one: Callable[[dict[str, Any]], Any]) -> list[Any]:
  """`one` of each block's cache, with arrays of all its layers, or in a tuple with an element per
  layer.
  """
  layer = lambda blocks: [one(block) for block in blocks]
  return [tuple(map(layer, s)) if isinstance(s, tuple) else layer(s) for s in cache['layers']]


def _by_layer(cache: dict[str, Any], one: Callable[[dict[str, Any]], Any]) -> list[Any]:
  """`one` of each block's cache, applied to each layer separately."""
  layer = lambda blocks: [one(block) for block in blocks]
  mapped = lambda s: jax.vmap(layer)(s) if jax.tree.leaves(s) else s
  return [tuple(map(layer, s)) if isinstance(s, tuple) else mapped(s) for s in cache['layers']]
