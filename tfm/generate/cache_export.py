"""Export of a prompt's cache to plain arrays, and import, for every kind of cache."""

from collections.abc import Iterator, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.generate.prompts import bucket
from tfm.model.cache import init_cache
from tfm.model.spec import Block, Model
from tfm.parts.context import Run
from tfm.parts.tokeninfo import TokenInfo

Arrays = dict[str, NDArray[Any]]

#: The prefix of the names of recurrent states.
ROW = 'row.'


def export_tokens(stack: Model, run: Run, cache: Any) -> Arrays:
  """Return the cache of the first sequence by name, in the dtypes of the cache.

  Args:
    stack: The spec of the layers.
    run: The run of the cache.
    cache: A cache after the prompt.

  Returns:
    Entries of tokens (`segments.0.pattern.0.k` and so on), `[L, tokens, ...]` in order of position,
    for the tokens that the layer still holds. Recurrent states (`row.segments.0.pattern.0.c` and so
    on), `[L, ...]`.
  """
  exported: Arrays = {}
  stores = _stores(cache)
  for (i, j), path, _ in _blocks(stack):
    states = stores[i][j]['mixer']['rows']
    exported |= {f'{ROW}{path}.{name}': np.asarray(a[:, 0]) for name, a in states.items()}
  for path, (arrays, pos_S, real_S) in jax.device_get(_read_tokens(stack, run, cache)).items():
    # A ring cache holds the tokens in any order.
    kept = np.flatnonzero(real_S)
    kept = kept[np.argsort(pos_S[kept])]
    exported |= {f'{path}.{name}': np.ascontiguousarray(a[:, kept]) for name, a in arrays.items()}
  return exported


def import_tokens(
  stack: Model, run: Run, slots: int, arrays: Arrays, tokens: int, cached_B: NDArray[np.int32]
) -> dict[str, Any]:
  """Return a cache filled with the first tokens of an exported one.

  Args:
    stack: The spec of the layers.
    run: The run of the new cache.
    slots: Cache slots per sequence.
    arrays: From `export_tokens`.
    tokens: The number of tokens that were exported.
    cached_B: The number of tokens of each sequence. With recurrent states: 0 or `tokens`.

  Returns:
    The cache.
  """
  parts: dict[str, Any] = {}
  states: dict[str, Any] = {}
  for _, path, _ in _blocks(stack):
    if entries := _with_prefix(arrays, f'{path}.'):
      n = next(iter(entries.values())).shape[1]
      padded = {name: _padded(a, 1, bucket(n)) for name, a in entries.items()}
      parts[path] = padded, np.int32(tokens - n)
    if rows := _with_prefix(arrays, f'{ROW}{path}.'):
      states[path] = rows
  return _import(stack, run, slots, parts, states, cached_B)


def export_source(spec: Model, cache: Any, tokens: int) -> Arrays:
  """Return the cross-attention cache of the first sequence by name.

  Args:
    spec: An encoder-decoder.
    cache: A cache after the prompt.
    tokens: The number of tokens of the encoder.

  Returns:
    Arrays such as `segments.0.pattern.0.cross.k`, with `tokens` entries.
  """
  exported: Arrays = {}
  stores = _stores(cache)
  for (i, j), path, block in _blocks(spec):
    cross = stores[i][j].get('cross', ())
    for (name, axis), a in zip(_cross_arrays(spec, block), jax.tree.leaves(cross), strict=True):
      first = np.take(np.asarray(a[:, 0]), np.arange(tokens), axis)
      exported[f'{path}.cross.{name}'] = np.ascontiguousarray(first)
  return exported


def import_source(
  spec: Model, run: Run, B: int, slots: int, source: int, arrays: Arrays
) -> dict[str, Any]:
  """Return a cache in which all sequences attend to an exported encoder output.

  Args:
    spec: An encoder-decoder.
    run: The run of the new cache.
    B: The number of sequences.
    slots: Cache slots per sequence.
    source: The padded length of the encoder output.
    arrays: From `export_source`.

  Returns:
    A cache without decoder tokens.
  """
  dtype = run.precision.dtype('compute')
  cache = init_cache(spec, B, slots, dtype, source, run.cache.roomy)
  for (i, j), path, block in _blocks(spec):
    leaves = []
    for name, axis in _cross_arrays(spec, block):
      a = jnp.asarray(_padded(arrays[f'{path}.cross.{name}'], axis, source))
      leaves.append(jnp.broadcast_to(a[:, None], (len(a), B, *a.shape[1:])))
    if leaves:
      store = cache['layers'][i][j]
      store['cross'] = jax.tree.unflatten(jax.tree.structure(store['cross']), leaves)
  return cache


def _blocks(stack: Model) -> Iterator[tuple[tuple[int, int], str, Block]]:
  """Yield ((segment, index in its pattern), path, block) of each block of each segment."""
  for i, segment in enumerate(stack.segments):
    for j, block in enumerate(segment.pattern):
      yield (i, j), f'segments.{i}.pattern.{j}', block


def _stores(cache: Any) -> list[Any]:
  """Return the caches of the layers by segment and block, stacked."""
  stack = lambda segment: (
    jax.tree.map(lambda *a: jnp.stack(a), *segment) if isinstance(segment, tuple) else segment
  )
  return [stack(segment) for segment in cache['layers']]


def _with_prefix(arrays: Arrays, prefix: str) -> Arrays:
  """Return the arrays with a prefix, under names without it."""
  return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _padded(a: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
  """Return `a` with zeros appended up to `size` along an axis."""
  after = [0] * a.ndim
  after[axis] = size - a.shape[axis]
  return np.pad(a, [(0, n) for n in after])


def _cross_arrays(spec: Model, block: Block) -> list[tuple[str, int]]:
  """Return (name, axis of the encoder's tokens) of each cross-attention array of a sequence."""
  if (cross := block.cross) is None:
    return []
  of = lambda S: jax.eval_shape(lambda: cross.init_cache(spec.d_model, 1, S, jnp.dtype('float32')))
  named = lambda path: jax.tree_util.keystr(path, simple=True, separator='.')
  found = []
  pairs = zip(jax.tree_util.tree_leaves_with_path(of(1)), jax.tree.leaves(of(2)), strict=True)
  for (path, a), b in pairs:
    same = [m == n for m, n in zip(a.shape, b.shape, strict=True)]
    found.append((named(path), same.index(False)))
  return found


def _token_arrays(stack: Model, run: Run, block: Block) -> Mapping[str, Any]:
  """Return the arrays that the cache stores per token."""
  if block.mixer is None:
    return {}
  dtype = run.precision.dtype('compute')
  return run.cache.stored(block.mixer.arrays(stack.d_model, dtype, 'token'))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _read_tokens(stack: Model, run: Run, cache: Any) -> dict[str, Any]:
  """Return (arrays `[L, S, ...]`, positions, mask) of the first sequence by block."""
  kind, found = run.cache.raw, {}
  empty = jnp.zeros((len(cache['slot']), 0), jnp.int32)
  info = TokenInfo(empty, empty, {'prefix': empty.astype(bool)})
  stores = _stores(cache)
  for (i, j), path, block in _blocks(stack):
    arrays = _token_arrays(stack, run, block)
    new = {n: jnp.zeros((*empty.shape, *a.shape), a.dtype) for n, a in arrays.items()}
    if new:
      read = jax.vmap(lambda store, new=new: kind.write(store, new, info, cache['slot'], None)[:2])
      cached, tokens = read(stores[i][j]['mixer']['tokens'])
      # Positions and segment ids are the same in all layers.
      found[path] = (
        {n: a[:, 0] for n, a in cached.items()},
        tokens.positions[0, 0],
        tokens.segment_ids[0, 0] > 0,
      )
  return found


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _import(
  stack: Model,
  run: Run,
  slots: int,
  parts: dict[str, Any],
  states: dict[str, Any],
  cached_B: jax.Array,
) -> dict[str, Any]:
  kind, B = run.cache.raw, len(cached_B)
  cache = init_cache(stack, B, slots, run.precision.dtype('compute'), kind=run.cache.roomy)
  for (i, j), path, _ in _blocks(stack):
    store = cache['layers'][i][j]
    if path in states:
      store['mixer'] = store['mixer'] | {'rows': _where_cached(states[path], cached_B)}
    if path not in parts:
      continue
    arrays, first = parts[path]
    width = next(iter(arrays.values())).shape[1]
    pos_BT = jnp.broadcast_to(first + jnp.arange(width, dtype=jnp.int32), (B, width))
    real_BT = pos_BT < cached_B[:, None]
    info = TokenInfo(pos_BT, real_BT.astype(jnp.int32), {'prefix': real_BT})
    first_B = jnp.broadcast_to(first, (B,))

    def fill(
      tokens: Any,
      arrays: dict[str, jax.Array],
      info: TokenInfo = info,
      first_B: jax.Array = first_B,
    ) -> Any:
      new = {n: jnp.broadcast_to(a[None], (B, *a.shape)) for n, a in arrays.items()}
      return kind.write(tokens, new, info, first_B, None)[2]

    store['mixer'] = store['mixer'] | {'tokens': jax.vmap(fill)(store['mixer']['tokens'], arrays)}
  return cache | {'slot': cached_B, 'next': cached_B}


def _where_cached(states: dict[str, jax.Array], cached_B: jax.Array) -> dict[str, jax.Array]:
  """Return recurrent states `[L, B, ...]`: `states` where tokens are cached, else zeros."""

  def per_sequence(a: jax.Array) -> jax.Array:
    cached = (cached_B > 0).reshape(1, -1, *[1] * (a.ndim - 1))
    return jnp.where(cached, a[:, None], jnp.zeros((), a.dtype))

  return {name: per_sequence(a) for name, a in states.items()}
