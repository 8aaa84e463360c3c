"""Read arrays from IDX files (MNIST's format, plain or gzipped), `.npy` and `.npz`.

The first bytes of a file decide its format.
"""

import gzip
import math
from pathlib import Path
from typing import Any
import zipfile
import zlib

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown

#: The dtype of each type byte of an IDX file, big-endian.
_IDX_TYPES = {0x08: 'u1', 0x09: 'i1', 0x0B: '>i2', 0x0C: '>i4', 0x0D: '>f4', 0x0E: '>f8'}
_GZIP, _NPY, _ZIP = b'\x1f\x8b', b'\x93NUMPY', b'PK'


def read_array(path: str, where: str) -> NDArray[Any]:
  """Return the array of a file. Plain IDX and `.npy` files are memory-mapped.

  Args:
    path: The file. `FILE.npz:NAME` is one array of an `.npz` file.
    where: The field in errors, such as 'data.images'.

  Raises:
    UserError: The file is missing, damaged or of another format.
  """
  name, member = _member(path)
  file = Path(name).expanduser()
  try:
    with open(file, 'rb') as opened:
      first = opened.read(6)
    if first.startswith(_ZIP):
      return _npz(file, member, where)
    if first == _NPY:
      return np.load(file, mmap_mode='r', allow_pickle=False)
    if first.startswith(_GZIP):
      return _idx(file, gzip.decompress(file.read_bytes()), where)
    if first.startswith(b'\0\0'):
      return _idx(file, None, where)
  except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, ValueError) as error:
    if isinstance(error, UserError):
      raise
    raise UserError(
      f'{where}: {file} is damaged ({error}). Expected a complete file. Download it again.'
    ) from error
  except OSError as error:
    raise UserError(f'{where}: cannot read {file} ({error.strerror}). Expected a file.') from error
  raise UserError(
    f'{where}: {file} begins with {first!r}. Expected an IDX file (plain or gzipped), .npy or .npz.'
  )


def check_exists(path: str, where: str) -> None:
  """Raise a UserError if the file of an array cannot be opened; `where` is its field."""
  file = Path(_member(path)[0]).expanduser()
  try:
    open(file, 'rb').close()
  except OSError as error:
    raise UserError(f'{where}: cannot read {file} ({error.strerror}). Expected a file.') from error


def _member(path: str) -> tuple[str, str]:
  """Return the file and the array name of 'FILE.npz:NAME'."""
  name, colon, member = path.rpartition(':')
  return (name, member) if colon and name.endswith('.npz') else (path, '')


def _npz(file: Path, member: str, where: str) -> NDArray[Any]:
  with np.load(file, allow_pickle=False) as arrays:
    if not member and len(arrays.files) != 1:
      names = ', '.join(arrays.files) or 'none'
      raise UserError(
        f'{where}: {file} has {len(arrays.files)} arrays ({names}). Expected one, or '
        f'{file.name}:NAME.'
      )
    if member and member not in arrays.files:
      raise UserError(f'{where}: {file}: {unknown("array", member, arrays.files)}')
    return arrays[member or arrays.files[0]]


def _idx(file: Path, content: bytes | None, where: str) -> NDArray[Any]:
  """Return the array of an IDX file.

  Args:
    file: The file.
    content: Its unzipped content. None maps a plain file into memory.
    where: The field in errors.
  """
  head = content
  if head is None:
    with open(file, 'rb') as opened:
      head = opened.read(4 + 4 * 255)
  size = file.stat().st_size if content is None else len(content)
  valid = len(head) >= 4 and head[:2] == b'\0\0' and head[2] in _IDX_TYPES
  if not valid or len(head) < 4 + 4 * head[3]:
    raise UserError(
      f'{where}: {file} has no IDX header ({head[:4].hex(" ")}). Expected 00 00, a type and a rank.'
    )
  dtype, rank = np.dtype(_IDX_TYPES[head[2]]), head[3]
  shape = tuple(int(n) for n in np.frombuffer(head, '>u4', rank, 4))
  start, needed = 4 + 4 * rank, math.prod(shape) * dtype.itemsize
  if size - start != needed:
    state = 'is truncated' if size - start < needed else 'is too long'
    raise UserError(
      f'{where}: {file} {state}: {size - start} bytes for shape {shape}. Expected {needed}.'
    )
  if content is not None:
    return np.frombuffer(content, dtype, offset=start).reshape(shape)
  if not needed:
    return np.zeros(shape, dtype)
  return np.memmap(file, dtype, 'r', start, shape)
