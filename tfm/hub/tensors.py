"""Lazy access to the tensors in the weight files of a checkpoint."""

from collections.abc import Iterator, Mapping
import json
import math
import mmap
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import safetensors

from tfm.core import errors, json_text
from tfm.hub.path_errors import check_not_pointer, no_weights_message
from tfm.hub.pickles import read_pickle as read_pickle

SAFE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
PICKLED, PICKLED_INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'

_DTYPES = {
  'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16,
  'F8_E4M3': ml_dtypes.float8_e4m3fn, 'F8_E5M2': ml_dtypes.float8_e5m2,
  'F8_E8M0': ml_dtypes.float8_e8m0fnu,
  'I64': np.int64, 'I32': np.int32, 'I16': np.int16, 'I8': np.int8,
  'U64': np.uint64, 'U32': np.uint32, 'U16': np.uint16, 'U8': np.uint8, 'BOOL': np.bool_,
}  # fmt: skip


class Entry(Protocol):
  """A tensor that is read on use."""

  @property
  def shape(self) -> tuple[int, ...]: ...

  @property
  def dtype(self) -> np.dtype: ...

  def array(self) -> np.ndarray:
    """Return the whole tensor."""

  def chunks(self) -> Iterator[np.ndarray]:
    """Yield chunks along the first axis that fit into memory; a view of a file is one chunk."""

  def release(self) -> None:
    """Release the memory of mapped file pages."""


class Tensors(Mapping[str, np.ndarray]):
  """Mapping from names to arrays, which are read on access and not cached.

  Arrays of safetensors files are views of the memory-mapped file.

  Args:
    entries: Lazy tensors or NumPy arrays by name.
  """

  def __init__(
    self, entries: Mapping[str, Entry] | Mapping[str, np.ndarray] | Mapping[str, Entry | np.ndarray]
  ):
    self.entries: dict[str, Entry] = {}
    for name, entry in entries.items():
      self.entries[name] = _Array(entry) if isinstance(entry, np.ndarray) else entry

  def __getitem__(self, name: str) -> np.ndarray:
    return self.entries[name].array()

  def __contains__(self, name: object) -> bool:
    return name in self.entries  # Mapping would read the tensor.

  def __iter__(self) -> Iterator[str]:
    return iter(self.entries)

  def __len__(self) -> int:
    return len(self.entries)

  def shape(self, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor without reading it."""
    return self.entries[name].shape

  def dtype(self, name: str) -> np.dtype:
    """Return the dtype of a tensor without reading it."""
    return self.entries[name].dtype

  def nbytes(self, name: str) -> int:
    """Return the size of a tensor in bytes without reading it."""
    return math.prod(self.shape(name)) * self.dtype(name).itemsize

  def chunks(self, name: str) -> Iterator[np.ndarray]:
    """Return chunks of a tensor along its first axis (see `Entry.chunks`)."""
    return self.entries[name].chunks()

  def release(self, name: str) -> None:
    """Release the memory of the mapped file pages of a tensor."""
    self.entries[name].release()


class _Array:
  """A tensor in memory."""

  def __init__(self, array: np.ndarray):
    self.value, self.shape, self.dtype = array, array.shape, array.dtype

  def array(self) -> np.ndarray:
    return self.value

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.value

  def release(self) -> None:
    pass


class _File:
  """A memory-mapped safetensors file.

  Raises:
    UserError: The file is truncated or its header is invalid.
  """

  def __init__(self, path: Path):
    self.path = path
    check_not_pointer(path)
    try:
      # The library validates the header against the file: lengths, offsets, dtypes and gaps.
      with safetensors.safe_open(path, framework='np') as f:
        self.names = list(f.keys())
      with path.open('rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        self.header: dict[str, Any] = json.loads(file.read(length))
        self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
      raise errors.UserError(
        f'{path}: cannot be read: {error.strerror or error}. Expected a safetensors file.'
      ) from error
    except Exception as error:
      size = path.stat().st_size
      raise errors.UserError(
        f'{path}: is not a valid safetensors file: {error} ({size} bytes). Expected a complete '
        'file: download it again if it was truncated.'
      ) from error
    self.start = 8 + length

  def entries(self) -> dict[str, '_Entry']:
    return {name: _Entry(self, self.header[name]) for name in self.names}


class _Entry:
  def __init__(self, file: _File, header: dict[str, Any]):
    self.file, self.shape = file, tuple(header['shape'])
    self.begin = file.start + header['data_offsets'][0]
    if header['dtype'] not in _DTYPES:
      raise errors.UserError(f'{file.path}: {errors.unknown("dtype", header["dtype"], _DTYPES)}')
    self.dtype = np.dtype(_DTYPES[header['dtype']])

  def array(self) -> np.ndarray:
    size = math.prod(self.shape) * self.dtype.itemsize
    raw = np.frombuffer(self.file.map, np.uint8, size, self.begin)
    return raw.view(self.dtype).reshape(self.shape)

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    drop_pages(self.file.map, self.begin, math.prod(self.shape) * self.dtype.itemsize)


def drop_pages(content: mmap.mmap, begin: int, size: int) -> None:
  """Release the full memory pages of a mapped file in a byte range.

  Args:
    content: The mapped file.
    begin: The first byte of the range.
    size: The size of the range in bytes.
  """
  page = mmap.PAGESIZE
  first = -(-begin // page) * page
  if (length := (begin + size) // page * page - first) > 0:
    content.madvise(mmap.MADV_DONTNEED, first, length)


def open_tensors(folder: Path) -> Tensors:
  """Return the tensors in the safetensors or PyTorch files of a published folder.

  Raises:
    UserError: There are none, or a file is missing, damaged or outside of the folder.
  """
  if (folder / INDEX).is_file():
    return Tensors(_sharded(folder, INDEX))
  if (folder / SAFE).is_file():
    return Tensors(_File(folder / SAFE).entries())
  if (folder / PICKLED_INDEX).is_file():
    arrays: dict[str, np.ndarray] = {}
    for name in sorted({*_weight_map(folder, PICKLED_INDEX).values()}):
      arrays |= read_pickle(_inside(folder, name))
    return Tensors(arrays)
  if (folder / PICKLED).is_file():
    return Tensors(read_pickle(folder / PICKLED))
  raise errors.UserError(f'{folder}: {no_weights_message(folder)}')


def safetensors_file(path: Path) -> Mapping[str, Entry]:
  """Return the tensors of one safetensors file.

  Raises:
    UserError: The file is missing or damaged.
  """
  return _File(path).entries()


def _sharded(folder: Path, index: str) -> dict[str, _Entry]:
  where = _weight_map(folder, index)
  files = {name: _File(_inside(folder, name)).entries() for name in sorted({*where.values()})}
  if missing := sorted(name for name, file in where.items() if name not in files[file]):
    raise errors.UserError(
      f'{folder / index}: lists tensors that are missing in the files: {", ".join(missing[:8])}. '
      'Expected all weight files of one version.'
    )
  return {name: files[file][name] for name, file in where.items()}


def _weight_map(folder: Path, index: str) -> dict[str, str]:
  try:
    found = json_text.parse((folder / index).read_text('utf-8'))['weight_map']
    if isinstance(found, dict) and all(isinstance(v, str) for v in found.values()):
      return found
    raise ValueError('weight_map is not a map to file names')
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f'{folder / index}: is not an index of weight files ({error}). Expected a weight_map.'
    ) from error


def _inside(folder: Path, name: str) -> Path:
  """Return the path of a file inside a folder."""
  path = folder / name
  # Files may be links into a cache, but names must not leave the folder.
  if Path(name).is_absolute() or '..' in Path(name).parts:
    raise errors.UserError(
      f'{folder}: the index lists a file outside of the folder ({name!r}). Expected relative '
      'names inside it.'
    )
  if not path.is_file():
    raise errors.UserError(f'{path}: is missing. Expected all files that the index lists.')
  return path
