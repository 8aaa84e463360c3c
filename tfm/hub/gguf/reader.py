"""Reader of the header of GGUF files, the format of llama.cpp and ggml."""

import math
import mmap
from pathlib import Path
import re
import struct
from typing import Any, NamedTuple

import numpy as np

from tfm.core import errors
from tfm.hub.gguf.blocks import NAMES, TYPES, Type

MAGIC = b'GGUF'
#: The type of a value -> its `struct` format.
_SCALARS = {
  0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q', 12: 'd',
}  # fmt: skip
_TEXT, _LIST = 8, 9
#: Errors from a malformed header.
_MALFORMED = (
  struct.error, ArithmeticError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip
_SPLIT = re.compile(r'-(\d{5})-of-(\d{5})\.gguf$')


class Info(NamedTuple):
  """The description of a tensor in a file.

  Attributes:
    shape: The shape in row-major order.
    type: The tensor type.
    file: The file.
    begin: The offset of the first byte.
  """

  shape: tuple[int, ...]
  type: Type
  file: 'File'
  begin: int

  @property
  def nbytes(self) -> int:
    """The size in bytes in the file."""
    return math.prod(self.shape) // self.type.numbers * self.type.size


class File:
  """A memory-mapped GGUF file.

  Attributes:
    path: The file.
    fields: The values of the header by name. Arrays of numbers are NumPy arrays, arrays of texts
      are lists.
    tensors: The tensors by name.

  Raises:
    UserError: The file is damaged or truncated, or has an unsupported version, byte order or
      tensor type.
  """

  def __init__(self, path: Path):
    self.path = path
    try:
      with path.open('rb') as file:
        if file.read(4) != MAGIC:
          raise errors.UserError(
            f'{path}: is not a GGUF file. Expected {MAGIC.decode()} as the first four bytes.'
          )
        self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
      self.fields, self.tensors = self._header(_Cursor(self.map))
    except OSError as error:
      raise errors.UserError(
        f'{path}: cannot be read: {error.strerror or error}. Expected a GGUF file.'
      ) from error
    except _MALFORMED as error:
      if isinstance(error, errors.UserError):
        raise
      raise errors.UserError(
        f'{path}: is not a valid GGUF file: {error} ({len(self.map)} bytes). Expected a complete '
        'file: download it again if it was truncated.'
      ) from error

  def _header(self, cursor: '_Cursor') -> tuple[dict[str, Any], dict[str, Info]]:
    version = cursor.scalar('I')
    if version not in (2, 3):
      what = 'is big-endian' if version & 0xFFFF == 0 else f'has GGUF version {version}'
      raise errors.UserError(f'{self.path}: {what}. Expected version 2 or 3, little-endian.')
    n_tensors, n_fields = cursor.scalar('Q'), cursor.scalar('Q')
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
      name = cursor.text()
      if name in fields:
        raise ValueError(f'duplicate field {name}')
      fields[name] = cursor.value(cursor.scalar('I'))
    found = {}
    for _ in range(n_tensors):
      name, axes = cursor.text(), cursor.scalar('I')
      shape = tuple(cursor.scalar('Q') for _ in range(min(axes, 8)))[::-1]
      kind, begin = cursor.scalar('I'), cursor.scalar('Q')
      if name in found:
        raise ValueError(f'duplicate tensor {name}')
      found[name] = shape, kind, begin
    align = fields.get('general.alignment', 32)
    if not isinstance(align, int) or align < 1:
      raise ValueError(f'general.alignment is {align!r}')
    start = -(-cursor.at // align) * align
    return fields, {name: self._info(name, start, *each) for name, each in found.items()}

  def _info(self, name: str, start: int, shape: tuple[int, ...], kind: int, begin: int) -> Info:
    if kind not in TYPES:
      unknown = errors.unknown(
        'tensor type', NAMES.get(kind, kind), (t.name for t in TYPES.values())
      )
      raise errors.UserError(
        f'{self.path}: {name}: {unknown} Expected a known type. Most repositories have files of '
        'several types.'
      )
    info = Info(shape, TYPES[kind], self, start + begin)
    if shape[-1:] and shape[-1] % info.type.numbers:
      raise ValueError(
        f'{name} has rows of {shape[-1]} numbers, not a multiple of {info.type.numbers}'
      )
    if info.begin + info.nbytes > len(self.map):
      raise ValueError(f'{name} ends at byte {info.begin + info.nbytes}')
    return info


class _Cursor:
  """A position in the bytes of a header."""

  def __init__(self, data: mmap.mmap):
    self.data, self.at = data, 4

  def scalar(self, form: str) -> Any:
    (value,) = struct.unpack(f'<{form}', self.raw(struct.calcsize(f'<{form}')))
    # Use the shortest decimal of the float32: 1e-05 instead of 9.999999747378752e-06.
    return float(str(np.float32(value))) if form == 'f' else value

  def raw(self, size: int) -> bytes:
    if size > len(self.data) - self.at:
      raise ValueError('the header is truncated')
    self.at += size
    return self.data[self.at - size : self.at]

  def text(self) -> str:
    return self.raw(self.scalar('Q')).decode('utf-8')

  def value(self, kind: int) -> Any:
    if kind == _TEXT:
      return self.text()
    if kind != _LIST:
      return self.scalar(_SCALARS[kind])
    inner, count = self.scalar('I'), self.scalar('Q')
    if inner in (_TEXT, _LIST):
      return [self.value(inner) for _ in range(count)]
    dtype = np.dtype(_SCALARS[inner]).newbyteorder('<')
    return np.frombuffer(self.raw(count * dtype.itemsize), dtype)


def open_files(path: Path) -> tuple[dict[str, Any], dict[str, Info]]:
  """Return the fields and tensors of a GGUF file, merged over all files of a split model.

  Raises:
    UserError: A file is missing, damaged or not supported.
  """
  split = _SPLIT.search(path.name)
  if split is None:
    file = File(path)
    return file.fields, file.tensors
  fields: dict[str, Any] = {}
  tensors: dict[str, Info] = {}
  for number in range(1, int(split[2]) + 1):
    part = path.with_name(f'{path.name[: split.start()]}-{number:05}-of-{split[2]}.gguf')
    if not part.is_file():
      raise errors.UserError(
        f'{part}: is missing. Expected all {int(split[2])} files of the model.'
      )
    file = File(part)
    fields, tensors = fields or file.fields, tensors | file.tensors
  return fields, tensors


def _has_magic(path: Path) -> bool:
  try:
    with path.open('rb') as file:
      return file.read(4) == MAGIC
  except OSError:
    return False


def find_file(path: Path) -> Path | None:
  """Return the GGUF file at a path, None if there is none.

  The path may also be a folder with a single GGUF model and no config.json.

  Raises:
    UserError: The folder has several models.
  """
  if path.is_file():
    return path if path.suffix == '.gguf' or _has_magic(path) else None
  if not path.is_dir() or (path / 'config.json').is_file():
    return None
  found = sorted(p for p in path.glob('*.gguf') if not p.name.startswith('mmproj'))
  first = [p for p in found if (split := _SPLIT.search(p.name)) is None or int(split[1]) == 1]
  if len(first) > 1:
    raise errors.UserError(
      f'{path}: holds {len(first)} GGUF files ({", ".join(p.name for p in first[:8])}). Expected '
      'the path of one file.'
    )
  return first[0] if first else None
