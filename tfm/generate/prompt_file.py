"""Files of what is cached of a prompt: written whole or not at all, read only by the model and the
run they are of.
"""

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
from tfm.parts.context import Run

#: What a file must have in common with the run that reads it, and what each is called.
_SAME = {'weights': 'weights', 'dtype': 'dtype', 'cache': 'cache kind'}
_TOKENS, _POSITIONS, _DIGEST = 'tokens', 'positions', 'digest'


def save(
  path: str | Path, spec: Model, params: Any, run: Run, tokens: NDArray[np.int32], arrays: Arrays
) -> None:
  """Writes a prompt's tokens and what is cached of them, all of it or nothing.

  The file has 8 bytes a token (id and position), the bytes of the arrays, and a header.
  """
  plain = {name: _bits(a) for name, a in arrays.items()}
  plain |= {_TOKENS: tokens.astype(np.int32), _POSITIONS: np.arange(len(tokens), dtype=np.int32)}
  about = _about(spec, params, run) | {_DIGEST: _digest(plain)}
  path = Path(path)
  with tempfile.TemporaryDirectory(dir=path.parent or '.', prefix=f'.{path.name}.') as folder:
    part = Path(folder) / path.name
    save_file(plain, part, about)
    os.replace(part, path)


def load(path: str | Path, spec: Model, params: Any, run: Run) -> tuple[NDArray[np.int32], Arrays]:
  """(tokens, what is cached of them) of a file that was written for this model and this run.

  Raises: UserError.
  """
  try:
    with safe_open(path, 'numpy') as file:
      about, plain = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (SafetensorError, OSError) as e:
    raise errors.UserError(
      f'prompt_cache: {path}: cannot be read ({e}). Expected it removed: it is then made anew.'
    ) from e
  mine = _about(spec, params, run)
  if missing := sorted({*mine, _DIGEST} - {*about}):
    raise errors.UserError(
      f'prompt_cache: {path}: is no prompt cache, it lacks {", ".join(missing)}. Expected another '
      f'file.'
    )
  if about[_DIGEST] != _digest(plain):
    raise errors.UserError(
      f'prompt_cache: {path}: its contents are damaged. Expected it removed: it is then made anew.'
    )
  if wrong := list(_differences(about, mine, spec)):
    raise errors.UserError(
      f'prompt_cache: {path}: {"; ".join(wrong)}. Expected the same, or another file.'
    )
  tokens = plain.pop(_TOKENS)
  del plain[_POSITIONS]
  return tokens, {
    name: a.view(jnp.bfloat16) if a.dtype == np.uint16 else a for name, a in plain.items()
  }


def _differences(theirs: dict[str, str], mine: dict[str, str], spec: Model) -> Iterator[str]:
  # Not as text: earlier versions stored other fields.
  stored = config.from_json(Model, json.loads(theirs['spec']))
  if stored != spec:
    yield f'spec differs ({", ".join(config.diff(stored, spec))})'
  for name, word in _SAME.items():
    if theirs[name] != mine[name]:
      shown = '' if name == 'weights' else f' (the file: {theirs[name]}, this run: {mine[name]})'
      yield f'{word} differ{"" if name == "weights" else "s"}{shown}'


def _about(spec: Model, params: Any, run: Run) -> dict[str, str]:
  return {
    'weights': _digest(
      {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    ),
    'spec': json.dumps(config.to_json(spec), sort_keys=True),
    'dtype': str(jnp.dtype(run.precision.dtype('compute'))),
    'cache': config.text_of(run.cache),
  }


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
