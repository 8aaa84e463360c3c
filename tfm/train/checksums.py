"""Checksums of checkpoints, which are verified by every read.

Arrays are stored in chunks. Each has a CRC-32C, which TensorStore compares when it reads the chunk,
whatever the mesh and the dtype of the reader. Chunks are small, so that a core computes the CRC of
bytes that are still in its cache. OCDBT does the same for its indices. `checksums.json` lists the
SHA-256 of the other files of a folder.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import json
import math
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

#: The most bytes of a chunk.
_CHUNK = 1 << 20

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


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
  """Return the shape of a chunk: contiguous, at most 1 MiB, a divisor of every axis.

  Args:
    shape: The part of an array that a device writes.
    itemsize: The bytes of an element.
  """
  found, room = list(shape), _CHUNK // itemsize
  for axis, size in enumerate(shape):
    rest = math.prod(shape[axis + 1 :])
    divisors = [n for n in range(1, size + 1) if size % n == 0 and n * rest <= room]
    found[axis] = max(divisors, default=min(size, 1))
    if rest <= room:
      break
  return tuple(found)


def _add_crc32c() -> None:
  """Store arrays in small chunks, each with a CRC-32C. Orbax has no option for it."""
  init = ArrayWriteSpec.__init__

  def with_crc32c(self: Any, *args: Any, **kwargs: Any) -> None:
    init(self, *args, **kwargs)
    stored = self.json.get('base', self.json)
    if stored['driver'] != 'zarr3':
      return
    metadata, array = stored['metadata'], self.metadata
    shape = chunk_shape(tuple(array.chunk_shape), array.dtype.itemsize)
    metadata['chunk_grid']['configuration']['chunk_shape'] = shape
    # Orbax stores one chunk per shard. The shard only adds a second lookup.
    (shard,) = metadata['codecs']
    metadata['codecs'] = [*shard['configuration']['codecs'], {'name': 'crc32c'}]
    self._metadata = dataclasses.replace(array, chunk_shape=shape)

  ArrayWriteSpec.__init__ = with_crc32c


_add_crc32c()
