"""Prompt-cache files: written atomically, and bound to one model and one kind of run."""

from collections.abc import Iterator
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
from tfm.generate.cache_export import Arrays
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.parts.context import Run

#: Metadata that a file and the run that reads it must have in common, with names for errors.
_SAME = {'weights': 'weights', 'dtype': 'dtype', 'cache': 'cache kind'}
_TOKENS, _POSITIONS, _DIGEST = 'tokens', 'positions', 'digest'


def save(
  path: str | Path, spec: Model, params: Params, run: Run, tokens: NDArray[np.int32], arrays: Arrays
) -> None:
  """Write the tokens and the cache of a prompt atomically.

  The file has 8 bytes per token (id and position), the bytes of the arrays, and a header.

  Args:
    path: The file to write.
    spec: The model.
    params: Its parameters, of which the file stores a hash.
    run: The run of the cache.
    tokens: The ids of the prompt.
    arrays: From `tfm.generate.cache_export`.
  """
  stored = {name: _bits(a) for name, a in arrays.items()}
  stored |= {_TOKENS: tokens.astype(np.int32), _POSITIONS: np.arange(len(tokens), dtype=np.int32)}
  metadata = _metadata(spec, params, run) | {_DIGEST: _digest(stored)}
  path = Path(path)
  with tempfile.TemporaryDirectory(dir=path.parent or '.', prefix=f'.{path.name}.') as folder:
    part = Path(folder) / path.name
    save_file(stored, part, metadata)
    os.replace(part, path)


def load(
  path: str | Path, spec: Model, params: Params, run: Run
) -> tuple[NDArray[np.int32], Arrays]:
  """Read a prompt-cache file of this model and run.

  Args:
    path: The file.
    spec: The model.
    params: Its parameters.
    run: The run that continues from the cache.

  Returns:
    (token ids, arrays of the cache).

  Raises:
    UserError: for a file that is damaged, or of another model or run.
  """
  try:
    with safe_open(path, 'numpy') as file:
      metadata = file.metadata() or {}
      stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (SafetensorError, OSError) as e:
    raise errors.UserError(
      f'prompt_cache: {path}: cannot be read ({e}). Expected a valid file, or none.'
    ) from e
  expected = _metadata(spec, params, run)
  if missing := sorted({*expected, _DIGEST} - {*metadata}):
    raise errors.UserError(
      f'prompt_cache: {path}: is not a prompt cache, it lacks {", ".join(missing)}. '
      'Expected another file.'
    )
  if metadata[_DIGEST] != _digest(stored):
    raise errors.UserError(
      f'prompt_cache: {path}: the contents are damaged (wrong digest). '
      'Expected a valid file, or none.'
    )
  if wrong := list(_differences(metadata, expected, spec)):
    raise errors.UserError(
      f'prompt_cache: {path}: {"; ".join(wrong)}. Expected the same, or another file.'
    )
  tokens = stored.pop(_TOKENS)
  del stored[_POSITIONS]
  return tokens, {name: _from_bits(a) for name, a in stored.items()}


def _differences(found: dict[str, str], expected: dict[str, str], spec: Model) -> Iterator[str]:
  # Specs are compared as values, because earlier versions stored other fields.
  stored = config.from_json(Model, json.loads(found['spec']))
  if stored != spec:
    yield f'spec differs ({", ".join(config.diff(stored, spec))})'
  for name, word in _SAME.items():
    if found[name] == expected[name]:
      continue
    if name == 'weights':
      yield 'weights differ'
    else:
      yield f'{word} differs (the file: {found[name]}, this run: {expected[name]})'


def _metadata(spec: Model, params: Params, run: Run) -> dict[str, str]:
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {
    'weights': _digest({jax.tree_util.keystr(path): x for path, x in leaves}),
    'spec': json.dumps(config.to_json(spec), sort_keys=True),
    'dtype': str(jnp.dtype(run.precision.dtype('compute'))),
    'cache': config.text_of(run.cache),
  }


def _digest(arrays: Any) -> str:
  """Return a hash of names, dtypes, shapes and bytes."""
  total = hashlib.sha256()
  for name in sorted(arrays):
    a = np.asarray(arrays[name])
    total.update(f'{name} {a.dtype} {a.shape} '.encode())
    total.update(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
  return total.hexdigest()


def _bits(a: NDArray[Any]) -> NDArray[Any]:
  """Return bfloat16 as uint16 bits, which files support, and other arrays unchanged."""
  return a.view(np.uint16) if a.dtype == jnp.bfloat16 else a


def _from_bits(a: NDArray[Any]) -> NDArray[Any]:
  return a.view(jnp.bfloat16) if a.dtype == np.uint16 else a
