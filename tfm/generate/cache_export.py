"""What a cache holds of a prompt, as plain arrays of its tokens, and a cache that holds it again:
whatever its kind.
"""

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

#: The prefix of the names of row states.
ROW = 'row.'


def taken(stack: Model, run: Run, cache: Any) -> Arrays:
  """What the cache holds of its first row, in the dtypes that it holds it in:
  `segments.0.pattern.0.k` and so on.

  `[L, tokens, ...]`: the last so many of the row's tokens as the layer has not forgotten, in their
  order. Row states are `[L, ...]`: `row.segments.0.pattern.0.c` and so on."""
  found: Arrays = {}
  stores = _stores(cache)
  for (i, j), at, _ in _blocks(stack):
    rows = stores[i][j]['mixer']['rows']
    found |= {f'{ROW}{at}.{name}': np.asarray(a[:, 0]) for name, a in rows.items()}
  for at, (arrays, pos_S, real_S) in jax.device_get(_looked(stack, run, cache)).items():
    # A ring has them in any order.
    kept = np.flatnonzero(real_S)
    kept = kept[np.argsort(pos_S[kept])]
    found |= {f'{at}.{name}': np.ascontiguousarray(a[:, kept]) for name, a in arrays.items()}
  return found


def filled(
  stack: Model, run: Run, slots: int, arrays: Arrays, tokens: int, held_B: NDArray[np.int32]
) -> dict[str, Any]:
  """A cache of rows that hold the first `held_B` of the `tokens` of which `arrays` were taken.

  With row states, each `held_B` is 0 or `tokens`.
  """
  parts: dict[str, Any] = {}
  states: dict[str, Any] = {}
  for _, at, _ in _blocks(stack):
    own = {
      name.removeprefix(f'{at}.'): a for name, a in arrays.items() if name.startswith(f'{at}.')
    }
    if own:
      n = next(iter(own.values())).shape[1]
      parts[at] = {name: _padded(a, 1, bucket(n)) for name, a in own.items()}, np.int32(tokens - n)
    first = f'{ROW}{at}.'
    if rows := {
      name.removeprefix(first): a for name, a in arrays.items() if name.startswith(first)
    }:
      states[at] = rows
  return _filled(stack, run, slots, parts, states, held_B)


def taken_of_source(spec: Model, cache: Any, tokens: int) -> Arrays:
  """What the cache holds of the encoder's first row of so many tokens:
  `segments.0.pattern.0.cross.k` and so on.
  """
  found: Arrays = {}
  stores = _stores(cache)
  for (i, j), at, block in _blocks(spec):
    kept = stores[i][j].get('cross', ())
    for (name, axis), a in zip(_leaves(spec, block), jax.tree.leaves(kept), strict=True):
      row = np.take(np.asarray(a[:, 0]), np.arange(tokens), axis)
      found[f'{at}.cross.{name}'] = np.ascontiguousarray(row)
  return found


def filled_source(
  spec: Model, run: Run, B: int, slots: int, source: int, arrays: Arrays
) -> dict[str, Any]:
  """A cache of B rows without tokens that have all read the source of which `arrays` were taken."""
  dtype = run.precision.dtype('compute')
  cache = init_cache(spec, B, slots, dtype, source, run.cache.roomy)
  for (i, j), at, block in _blocks(spec):
    leaves = []
    for name, axis in _leaves(spec, block):
      a = jnp.asarray(_padded(arrays[f'{at}.cross.{name}'], axis, source))
      leaves.append(jnp.broadcast_to(a[:, None], (len(a), B, *a.shape[1:])))
    if leaves:
      kept = cache['layers'][i][j]
      kept['cross'] = jax.tree.unflatten(jax.tree.structure(kept['cross']), leaves)
  return cache


def _blocks(stack: Model) -> Iterator[tuple[tuple[int, int], str, Block]]:
  """((segment, place in its pattern), name, block) of each block of each segment."""
  for i, segment in enumerate(stack.segments):
    for j, block in enumerate(segment.pattern):
      yield (i, j), f'segments.{i}.pattern.{j}', block


def _stores(cache: Any) -> list[Any]:
  """What the layers of each block of each segment keep, stacked."""
  stack = lambda segment: (
    jax.tree.map(lambda *a: jnp.stack(a), *segment) if isinstance(segment, tuple) else segment
  )
  return [stack(segment) for segment in cache['layers']]


def _padded(a: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
  """`a` with zeros after it, up to so many along the axis."""
  return np.pad(a, [(0, size - n if i == axis else 0) for i, n in enumerate(a.shape)])


def _leaves(spec: Model, block: Block) -> list[tuple[str, int]]:
  """(name, the axis of the source's tokens) of each array that a block keeps of a row of its
  encoder's.
  """
  if (cross := block.cross) is None:
    return []
  of = lambda S: jax.eval_shape(lambda: cross.init_cache(spec.d_model, 1, S, jnp.dtype('float32')))
  pairs = zip(jax.tree_util.tree_leaves_with_path(of(1)), jax.tree.leaves(of(2)), strict=True)
  named = lambda path: jax.tree_util.keystr(path, simple=True, separator='.')
  return [
    (named(path), [m == n for m, n in zip(a.shape, b.shape, strict=True)].index(False))
    for (path, a), b in pairs
  ]


def _kept(stack: Model, run: Run, block: Block) -> Mapping[str, Any]:
  """The arrays that are really kept of a token."""
  if block.mixer is None:
    return {}
  dtype = run.precision.dtype('compute')
  return run.cache.stored(block.mixer.arrays(stack.d_model, dtype, 'token'))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _looked(stack: Model, run: Run, cache: Any) -> dict[str, Any]:
  """(arrays `[L, S, ...]`, positions, whether there is a token) of the first row in each block's
  stores.
  """
  kind, found = run.cache.raw, {}
  empty = jnp.zeros((len(cache['slot']), 0), jnp.int32)
  info = TokenInfo(empty, empty, {'prefix': empty.astype(bool)})
  stores = _stores(cache)
  for (i, j), at, block in _blocks(stack):
    new = {
      n: jnp.zeros((*empty.shape, *a.shape), a.dtype) for n, a in _kept(stack, run, block).items()
    }
    if new:
      look = jax.vmap(lambda store, new=new: kind.write(store, new, info, cache['slot'], None)[:2])
      arrays, seen = look(stores[i][j]['mixer']['tokens'])
      # Sites are those of the tokens, the same in all layers.
      found[at] = (
        {n: a[:, 0] for n, a in arrays.items()},
        seen.positions[0, 0],
        seen.segment_ids[0, 0] > 0,
      )
  return found


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _filled(
  stack: Model,
  run: Run,
  slots: int,
  parts: dict[str, Any],
  states: dict[str, Any],
  held_B: jax.Array,
) -> dict[str, Any]:
  kind, B = run.cache.raw, len(held_B)
  cache = init_cache(stack, B, slots, run.precision.dtype('compute'), kind=run.cache.roomy)
  for (i, j), at, _ in _blocks(stack):
    kept = cache['layers'][i][j]
    if at in states:
      kept['mixer'] = kept['mixer'] | {'rows': _after(states[at], held_B)}
    if at not in parts:
      continue
    arrays, first = parts[at]
    wide = next(iter(arrays.values())).shape[1]
    pos_BT = jnp.broadcast_to(first + jnp.arange(wide, dtype=jnp.int32), (B, wide))
    real_BT = pos_BT < held_B[:, None]
    info, first_B = (
      TokenInfo(pos_BT, real_BT.astype(jnp.int32), {'prefix': real_BT}),
      jnp.broadcast_to(first, (B,)),
    )

    def fill(store, own, info=info, first_B=first_B):
      new = {n: jnp.broadcast_to(a[None], (B, *a.shape)) for n, a in own.items()}
      return kind.write(store, new, info, first_B, None)[2]

    kept['mixer'] = kept['mixer'] | {'tokens': jax.vmap(fill)(kept['mixer']['tokens'], arrays)}
  return cache | {'slot': held_B, 'next': held_B}


def _after(states: dict[str, jax.Array], held_B: jax.Array) -> dict[str, jax.Array]:
  """Row states `[L, B, ...]`: the states of the file, `[L, ...]`, in rows that hold its tokens,
  else zeros.
  """

  def of_rows(a):
    read_B = (held_B > 0).reshape(1, -1, *[1] * (a.ndim - 1))
    return jnp.where(read_B, a[:, None], jnp.zeros((), a.dtype))

  return {name: of_rows(a) for name, a in states.items()}
