"""Checksums of checkpoints, which are verified by every read.

Arrays are stored in chunks. Each has a CRC-32C, which TensorStore compares when it reads the chunk,
whatever the mesh and the dtype of the reader. OCDBT does the same for its indices. `checksums.json`
lists the SHA-256 of the other files of a folder.
"""

from collections.abc import Iterator
import hashlib
import json
from pathlib import Path
import re
from typing import Any

import jax
import orbax.checkpoint as ocp

from tfm.train import retry

try:
  from orbax.checkpoint._src.serialization.tensorstore_utils import ArrayWriteSpec
except ImportError as error:
  raise ImportError(
    f'orbax-checkpoint {ocp.__version__} has no ArrayWriteSpec, with which tfm stores checksums. '
    'Expected version 0.11.30 to 0.12.8.'
  ) from error

FILE = 'checksums.json'

# OCDBT has built-in checksums. The rest is not read.
_UNLISTED = (
  'd',
  'manifest.ocdbt',
  'commit_success.txt',
  '_CHECKPOINT_METADATA',
  '_sharding',
  FILE,
)
_DAMAGED = (
  'DATA_LOSS:',
  'OUT_OF_RANGE:',
  'NOT_FOUND:',
  'Error decoding',
  'corruption',
  'Truncated',
)
_DIGEST = re.compile(
  r'"(\S+)/c\b[^"]*" in OCDBT database at local file "(.*?)/?":.*'
  r'stored digest is (\w+) but computed digest is (\w+)',
  re.DOTALL,
)


class Broken(Exception):
  """A checkpoint with files that are damaged or missing."""


class StateHandler(ocp.PyTreeCheckpointHandler):
  """Stores a tree of arrays with checksums.

  Arrays are not compressed: weights hardly shrink, and restoring them would take longer.
  """

  def __init__(self) -> None:
    super().__init__(use_zarr3=True, use_compression=False)

  def finalize(self, directory: Any) -> None:
    super().finalize(directory)
    if jax.process_index() == 0:
      write(Path(directory))


@ocp.args.register_with_handler(StateHandler, for_save=True, for_restore=True)
class StateSave(ocp.args.PyTreeSave):
  """The tree that `StateHandler` stores."""


def write(folder: Path) -> None:
  """Write `checksums.json` of a folder."""
  listed = {str(path.relative_to(folder)): _sha256(path) for path in sorted(_files(folder))}
  (folder / FILE).write_text(json.dumps(listed, indent=1), 'utf-8')


def verify(folder: Path) -> bool:
  """Compare the files of a folder with its checksums.

  Returns:
    Whether the folder has checksums. Checkpoints of earlier versions have none.

  Raises:
    Broken: A file is missing or has another checksum.
  """
  path = folder / FILE
  if not path.exists():
    return False
  try:
    listed = dict(json.loads(path.read_text('utf-8')))
  except ValueError as error:
    raise Broken(f'{path}: is not JSON ({error})') from error
  for name, expected in listed.items():
    if (found := _sha256(folder / name)) != expected:
      raise Broken(f'{folder / name}: has SHA-256 {found[:16]}, expected {expected[:16]}')
  return True


def damage(error: BaseException) -> str:
  """Return the damaged array or file that an error proves, else ''."""
  for e in retry.causes(error):
    if isinstance(e, Broken | FileNotFoundError | json.JSONDecodeError | UnicodeDecodeError):
      return retry.reason(e)
    if found := _DIGEST.search(str(e)):
      name, path, stored, computed = found.groups()
      return f'{path}: array {name} has CRC-32C {computed}, expected {stored}'
    if isinstance(e, ValueError) and any(text in str(e) for text in _DAMAGED):
      return retry.reason(e)
  return ''


def _files(folder: Path) -> Iterator[Path]:
  for path in folder.iterdir():
    if path.name in _UNLISTED or path.name.startswith('ocdbt.'):
      continue
    if path.is_dir():
      yield from _files(path)
    else:
      yield path


def _sha256(path: Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _add_crc32c() -> None:
  """Add a CRC-32C to the chunks of arrays. Orbax has no option for it."""
  json_of = ArrayWriteSpec.json.fget

  def with_crc32c(self: Any) -> Any:
    spec = json_of(self)
    stored = spec.get('base', spec)
    if stored['driver'] == 'zarr3':
      (shards,) = stored['metadata']['codecs']
      codecs = shards['configuration']['codecs']
      if codecs[-1]['name'] != 'crc32c':
        codecs.append({'name': 'crc32c'})
    return spec

  ArrayWriteSpec.json = property(with_crc32c, doc=ArrayWriteSpec.json.__doc__)


_add_crc32c()
