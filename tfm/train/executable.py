"""Save a compiled training step, and load it where the same program runs."""

from collections.abc import Mapping
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from tfm.core import config, errors
from tfm.train.build import Built
from tfm.train.experiment import Experiment
from tfm.version import __version__

_MAGIC = b'tfm executable 1\n'

#: Environment variables that change the compiled program.
_FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')


def save(path: str | Path, x: Experiment, lowered: Any, compiled: Any) -> dict[str, str]:
  """Write a compiled training step and its fingerprint to a file.

  Args:
    path: The file.
    x: The experiment.
    lowered: The lowered step.
    compiled: The compiled step, compiled within `compile_cache.bypassed()`: a program that was read
      from the cache cannot be saved again.

  Returns:
    The fingerprint.
  """
  payload, _, _ = serialize_executable.serialize(compiled)
  marks = fingerprint(lowered)
  about = {
    'fingerprint': marks,
    'experiment': config.to_json(x),
    'sha256': hashlib.sha256(payload).hexdigest(),
  }
  header = json.dumps(about).encode()
  path = Path(path)
  part = path.with_name(f'{path.name}.part')
  part.write_bytes(_MAGIC + len(header).to_bytes(8, 'little') + header + payload)
  part.replace(path)
  return marks


def load(path: str | Path, x: Experiment, built: Built) -> Any:
  """Return the compiled step of a file, for `Built.step`.

  The step is traced and lowered again, which takes seconds, so that the file is used only for the
  same program. Load only files that you wrote: an executable can run any code.

  Args:
    path: A file of `save`.
    x: The experiment of this run.
    built: Its functions, on the devices of this run.

  Returns:
    The compiled step.

  Raises:
    UserError: The file is damaged, or was compiled for another program, compiler or chip. The
      message lists the differences.
  """
  about, payload = _read(Path(path))
  lowered = built.step.lower(*built.arguments)
  if lines := _differences(about, fingerprint(lowered), x):
    listed = '\n'.join(f'  {line}' for line in lines)
    raise errors.UserError(
      f'{path}: was compiled for another program:\n{listed}\n'
      'Expected the same config, jax, compiler and flags. Write it again with tfm plan --save.'
    )
  trees = jax.tree.structure((built.arguments, {})), lowered.out_tree
  return serialize_executable.deserialize_and_load(
    payload, *trees, execution_devices=list(built.mesh.devices.flat)
  )


def fingerprint(lowered: Any) -> dict[str, str]:
  """Return the fingerprint: program, compiler versions and their flags."""
  text: str = lowered.as_text()
  marks = {
    'program': hashlib.sha256(text.encode()).hexdigest()[:16],
    'tfm': __version__,
    'jax': jax.__version__,
    'jaxlib': jax.lib.__version__,
    'libtpu': _libtpu(),
  }
  return marks | {name: os.environ.get(name, '') for name in _FLAGS}


def _libtpu() -> str:
  from importlib import metadata

  try:
    return metadata.version('libtpu')
  except metadata.PackageNotFoundError:
    return 'none'


def _differences(about: Mapping[str, Any], here: Mapping[str, str], x: Experiment) -> list[str]:
  """Return how the fingerprint of a file differs from the one here; for programs, the configs."""
  there, found = about['fingerprint'], []
  for name in {**there, **here}:
    if name != 'program' and there.get(name) != here.get(name):
      found.append(f'{name}: {there.get(name)!r}, here {here.get(name)!r}')
  if there['program'] != here['program']:
    changed = config.diff(config.from_json(Experiment, about['experiment']), x)
    found += changed or ['the program: the configs are equal, so the code of tfm differs']
  return found


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
  """Return the description and the executable of a file."""
  try:
    content = path.read_bytes()
  except OSError as error:
    raise errors.UserError(
      f'{path}: {error.strerror}. Expected a file of tfm plan --save.'
    ) from error
  start = len(_MAGIC) + 8
  end = start + int.from_bytes(content[len(_MAGIC) : start], 'little')
  if not content.startswith(_MAGIC) or len(content) < end:
    raise errors.UserError(f'{path}: is no executable of tfm. Expected a file of tfm plan --save.')
  about: dict[str, Any] = json.loads(content[start:end])
  payload = content[end:]
  if hashlib.sha256(payload).hexdigest() != about['sha256']:
    raise errors.UserError(f'{path}: is damaged. Expected the bytes of tfm plan --save.')
  return about, payload
