"""The cache of a prompt in a file: the next run that begins alike reads only what is new."""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tfm.core import config, errors
from tfm.generate import prompts as prompts_lib
from tfm.generate.penalties import NOTHING
from tfm.generate.prompts import Batch
from tfm.model.cache import init_cache
from tfm.model.spec import Model
from tfm.parts.context import Run
from tfm.parts.site import Site

#: What a file must have in common with the run that reads it, and what each is called.
_SAME = {'weights': 'weights', 'dtype': 'dtype', 'cache': 'cache kind'}
_TOKENS, _POSITIONS, _DIGEST = 'tokens', 'positions', 'digest'

Arrays = dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Start:
  """What a prefill begins with: the inputs that are left to read, and a cache of the others (None: all are left)."""

  inputs: dict[str, Any]
  cache: Any


def start(path: str | Path, spec: Model, params: Any, batch: Batch, run: Run) -> Start:
  """The prompts of `batch` without what `path` holds of each, if there is such a file.

  A causal model takes from it as many tokens as the file and a prompt have in common; what a prefix LM says of a token
  depends on the whole prompt, so its prompts must be the file's. The last token is always read: it gives the logits.

  Raises: UserError for a file of something else, saying what differs, or one that is broken.
  """
  _allowed(spec, run)
  if not Path(path).exists():
    return Start(batch.inputs, None)
  tokens, arrays = load(path, spec, params, run)
  rows = [[int(t) for t in row if t != NOTHING] for row in batch.prompt]
  common = [_common(tokens.tolist(), row) for row in rows]
  alike = all(row == tokens.tolist() for row in rows) if spec.reads_prefix else any(common)
  if not alike:
    part = 'is' if spec.reads_prefix else 'begins with'
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the file {part} {_short(tokens.tolist())}, the prompt {part} '
      f'{_short(rows[0])}. Wanted the same, or another file.'
    )
  held_B = np.asarray([min(n, len(row) - 1) for n, row in zip(common, rows, strict=True)], np.int32)
  left = [row[n:] for n, row in zip(held_B, rows, strict=True)]
  width = min(prompts_lib.bucket(max(map(len, left))), batch.inputs['input_ids'].shape[1])
  names = ('input_ids', 'attention_mask', *(['prefix_mask'] if spec.reads_prefix else []))
  ids, mask = prompts_lib.padded(left, width, left=True)
  wide = prompts_lib.bucket(len(tokens))
  arrays = {n: np.pad(a, [(0, 0), (0, wide - len(tokens))] + [(0, 0)] * (a.ndim - 2)) for n, a in arrays.items()}
  cache = _filled(spec, run, batch.slots, arrays, held_B)
  return Start(dict(zip(names, (ids, mask, mask), strict=False)), cache)


def finish(path: str | Path, spec: Model, params: Any, batch: Batch, run: Run, cache: Any) -> None:
  """Keeps the first prompt's cache, right after it was read, unless there is a file."""
  if not Path(path).exists():
    save(path, spec, params, run, batch.prompt[0][batch.prompt[0] != NOTHING], cache)


def save(path: str | Path, spec: Model, params: Any, run: Run, tokens: NDArray[np.int32], cache: Any) -> None:
  """Writes the first row's tokens and what is cached of them, all of it or nothing.

  The file has 8 bytes a token (id and position), `tfm.model.count.cache_bytes_per_token`, and a header.
  """
  _allowed(spec, run)
  n = len(tokens)
  arrays = {name: np.ascontiguousarray(np.asarray(a)[:, :n]) for name, a in _read(spec, run, cache).items()}
  plain = {name: _bits(a) for name, a in arrays.items()}
  plain |= {_TOKENS: tokens.astype(np.int32), _POSITIONS: np.arange(n, dtype=np.int32)}
  about = _about(spec, params, run) | {_DIGEST: _digest(plain)}
  path = Path(path)
  with tempfile.TemporaryDirectory(dir=path.parent or '.', prefix=f'.{path.name}.') as folder:
    part = Path(folder) / path.name
    save_file(plain, part, about)
    os.replace(part, path)


def load(path: str | Path, spec: Model, params: Any, run: Run) -> tuple[NDArray[np.int32], Arrays]:
  """(tokens, what is cached of them) of a file that was written for this model and this run, `[layers, tokens, ...]`.

  Raises: UserError.
  """
  try:
    with safe_open(path, 'numpy') as file:
      about, plain = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (SafetensorError, OSError) as e:
    raise errors.UserError(
      f'prompt_cache: {path}: cannot be read ({e}). Wanted it removed: it is then made anew.'
    ) from e
  mine = _about(spec, params, run)
  if missing := sorted({*mine, _DIGEST} - {*about}):
    raise errors.UserError(
      f'prompt_cache: {path}: is no prompt cache, it lacks {", ".join(missing)}. Wanted another file.'
    )
  if about[_DIGEST] != _digest(plain):
    raise errors.UserError(f'prompt_cache: {path}: its contents are damaged. Wanted it removed: it is then made anew.')
  if wrong := list(_differences(about, mine, spec)):
    raise errors.UserError(f'prompt_cache: {path}: {"; ".join(wrong)}. Wanted the same, or another file.')
  tokens = plain.pop(_TOKENS)
  del plain[_POSITIONS]
  kinds = jax.tree.map(lambda a: a.dtype, _shapes(spec, run))
  return tokens, {name: a.view(kinds[name]) for name, a in plain.items()}


def _differences(theirs: dict[str, str], mine: dict[str, str], spec: Model) -> Iterator[str]:
  if theirs['spec'] != mine['spec']:
    lines = config.diff(config.from_json(Model, json.loads(theirs['spec'])), spec)
    yield f'spec differs ({", ".join(lines)})'
  for name, word in _SAME.items():
    if theirs[name] != mine[name]:
      shown = '' if name == 'weights' else f' (the file: {theirs[name]}, this run: {mine[name]})'
      yield f'{word} differ{"" if name == "weights" else "s"}{shown}'


def _about(spec: Model, params: Any, run: Run) -> dict[str, str]:
  return {
    'weights': _digest({jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}),
    'spec': json.dumps(config.to_json(spec), sort_keys=True),
    'dtype': str(jnp.dtype(run.precision.dtype('compute'))),
    'cache': config.text_of(run.cache),
  }


def _allowed(spec: Model, run: Run) -> None:
  if spec.encoder is not None:
    raise errors.UserError('prompt_cache: the model reads prompts in its encoder. Wanted a model without one, or None.')
  if not run.cache.whole:
    raise errors.UserError(
      f'prompt_cache: cache={config.text_of(run.cache)} forgets tokens, which a prompt that goes on otherwise would '
      'miss. Wanted dense, int8 or paged.'
    )


def _digest(arrays: Any) -> str:
  """A hash of names, dtypes, shapes and bytes."""
  total = hashlib.sha256()
  for name in sorted(arrays):
    a = np.asarray(arrays[name])
    total.update(f'{name} {a.dtype} {a.shape} '.encode())
    total.update(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
  return total.hexdigest()


def _bits(a: NDArray[Any]) -> NDArray[Any]:
  """`a` as a dtype that files know: bfloat16 as its bits."""
  return a.view(np.uint16) if a.dtype == jnp.bfloat16 else a


def _common(a: list[int], b: list[int]) -> int:
  return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _short(tokens: list[int]) -> str:
  return str(tokens if len(tokens) <= 8 else [*tokens[:8], '...']).replace("'", '')


def _stores(cache: Any) -> Iterator[tuple[str, Any]]:
  """(name, the layers' stores stacked) of each block of each segment."""
  for i, segment in enumerate(cache['layers']):
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *segment) if isinstance(segment, tuple) else segment
    for j, block in enumerate(stacked):
      yield f'segments.{i}.pattern.{j}', block['mixer']


@functools.partial(jax.jit, static_argnums=(0, 1))
def _read(spec: Model, run: Run, cache: Any) -> dict[str, jax.Array]:
  """What the cache holds of its first row, in the dtypes that it holds it in: `[L, S, ...]`."""
  kind = run.cache.raw
  found: dict[str, jax.Array] = {}
  empty = jnp.zeros((len(cache['slot']), 0), jnp.int32)
  site = Site(empty, empty, empty.astype(bool))
  for (at, store), shapes in zip(_stores(cache), _kept(spec, run), strict=True):
    new = {n: jnp.zeros((*empty.shape, *a.shape), a.dtype) for n, a in shapes.items()}
    look = jax.vmap(lambda store, new=new: kind.write(store, new, site, cache['slot'], None)[0])
    found |= {f'{at}.{n}': a[:, 0] for n, a in look(store).items()}
  return found


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _filled(spec: Model, run: Run, slots: int, arrays: dict[str, Any], held_B: jax.Array) -> Any:
  """A cache of rows that hold the first `held_B` of the tokens of `arrays`."""
  kind, B, wide = run.cache.raw, len(held_B), next(iter(arrays.values())).shape[1]
  cache = init_cache(spec, B, slots, run.precision.dtype('compute'), kind=run.cache)
  pos_BT = jnp.broadcast_to(jnp.arange(wide, dtype=jnp.int32), (B, wide))
  real_BT = pos_BT < held_B[:, None]
  site = Site(pos_BT, real_BT.astype(jnp.int32), real_BT)

  def fill(store, own):
    new = {n: jnp.broadcast_to(a[None], (B, *a.shape)) for n, a in own.items()}
    return kind.write(store, new, site, cache['slot'], None)[2]

  layers = []
  for i, segment in enumerate(cache['layers']):
    kept = []
    for j, block in enumerate(segment):
      start = f'segments.{i}.pattern.{j}.'
      own = {n.removeprefix(start): jnp.asarray(a) for n, a in arrays.items() if n.startswith(start)}
      kept.append({'mixer': jax.vmap(fill)(block['mixer'], own)})
    layers.append(kept)
  return cache | {'slot': held_B, 'next': held_B, 'layers': layers}


def _kept(spec: Model, run: Run) -> list[Mapping[str, Any]]:
  """The arrays that are really kept of a token, for each block of each segment."""
  dtype = run.precision.dtype('compute')
  plain = lambda block: {n: jax.ShapeDtypeStruct(s, dtype) for n, s in block.mixer.cached(spec.d_model).items()}
  return [run.cache.stored(plain(block)) for segment in spec.segments for block in segment.pattern]


def _shapes(spec: Model, run: Run) -> dict[str, jax.ShapeDtypeStruct]:
  names = [f'segments.{i}.pattern.{j}' for i, s in enumerate(spec.segments) for j in range(len(s.pattern))]
  return {f'{at}.{n}': a for at, kept in zip(names, _kept(spec, run), strict=True) for n, a in kept.items()}
