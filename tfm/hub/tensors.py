"""The tensors in the files of a checkpoint, by name; each is read when it is used."""

from collections.abc import Iterator, Mapping
import json
import math
import mmap
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import safetensors

from tfm.core import errors
from tfm.hub.path_errors import check_not_pointer, no_weights_message

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
  """A tensor that is read when it is used."""

  @property
  def shape(self) -> tuple[int, ...]: ...

  @property
  def dtype(self) -> np.dtype: ...

  def array(self) -> np.ndarray:
    """Return all of it."""

  def chunks(self) -> Iterator[np.ndarray]:
    """Yield it in parts along its first axis, each small enough for memory; a view of a file is one
    part.
    """

  def release(self) -> None:
    """Free the memory of the pages of the file that hold it."""


class Tensors(Mapping[str, np.ndarray]):
  """Name -> array. Arrays of safetensors files are views of the file: reading one reads its bytes,
  and keeps none.
  """

  def __init__(
    self, entries: Mapping[str, Entry] | Mapping[str, np.ndarray] | Mapping[str, Entry | np.ndarray]
  ):
    held = {name: _Held(e) if isinstance(e, np.ndarray) else e for name, e in entries.items()}
    self.entries: dict[str, Entry] = held

  def __getitem__(self, name: str) -> np.ndarray:
    return self.entries[name].array()

  def __contains__(self, name: object) -> bool:
    return name in self.entries  # without reading the tensor

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
    """Return a tensor in parts along its first axis (`Entry.chunks`)."""
    return self.entries[name].chunks()

  def release(self, name: str) -> None:
    """Free the memory of the pages of the file that hold a tensor."""
    self.entries[name].release()


class _Held:
  """A tensor that is in memory."""

  def __init__(self, array: np.ndarray):
    self.held, self.shape, self.dtype = array, array.shape, array.dtype

  def array(self) -> np.ndarray:
    return self.held

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.held

  def release(self) -> None:
    pass


class _File:
  """A safetensors file mapped into memory, and the place of each tensor in it.

  Raises:
    UserError: the file is cut short, or its header does not fit it.
  """

  def __init__(self, path: Path):
    self.path = path
    check_not_pointer(path)
    try:
      # The library's own reader checks lengths, offsets, dtypes and holes of the header against the
      # file.
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
        f'{path}: is not a whole safetensors file: {error} ({size} bytes). Expected a complete '
        f'file; '
        'download it again if it was cut short.'
      ) from error
    self.start = 8 + length

  def entries(self) -> dict[str, '_Entry']:
    return {name: _Entry(self, self.header[name]) for name in self.names}


class _Entry:
  def __init__(self, file: _File, header: dict[str, Any]):
    self.file, self.shape, self.begin = (
      file,
      tuple(header['shape']),
      file.start + header['data_offsets'][0],
    )
    if header['dtype'] not in _DTYPES:
      raise errors.UserError(f'{file.path}: {errors.unknown("dtype", header["dtype"], _DTYPES)}')
    self.dtype = np.dtype(_DTYPES[header['dtype']])

  def array(self) -> np.ndarray:
    count = int(np.prod(self.shape, dtype=np.int64))
    return (
      np.frombuffer(self.file.map, np.uint8, count * self.dtype.itemsize, self.begin)
      .view(self.dtype)
      .reshape(self.shape)
    )

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    drop_pages(self.file.map, self.begin, math.prod(self.shape) * self.dtype.itemsize)


def drop_pages(content: mmap.mmap, begin: int, size: int) -> None:
  """Free the memory of the whole pages of a mapped file within `size` bytes from `begin`."""
  page = mmap.PAGESIZE
  first = -(-begin // page) * page
  if (length := (begin + size) // page * page - first) > 0:
    content.madvise(mmap.MADV_DONTNEED, first, length)


def open_tensors(folder: Path) -> Tensors:
  """Return the tensors of a published folder: safetensors, in one file or several, or a PyTorch
  file.

  Raises:
    UserError: there are none, or a file is missing, damaged or outside of the folder.
  """
  if (folder / INDEX).is_file():
    return Tensors(_sharded(folder, INDEX))
  if (folder / SAFE).is_file():
    return Tensors(_File(folder / SAFE).entries())
  if (folder / PICKLED_INDEX).is_file():
    names = sorted({*_weight_map(folder, PICKLED_INDEX).values()})
    return Tensors({k: v for name in names for k, v in read_pickle(_inside(folder, name)).items()})
  if (folder / PICKLED).is_file():
    return Tensors(read_pickle(folder / PICKLED))
  raise errors.UserError(f'{folder}: {no_weights_message(folder)}')


def safetensors_file(path: Path) -> Mapping[str, Entry]:
  """Return the tensors of one safetensors file.

  Raises:
    UserError: the file is missing or damaged.
  """
  return _File(path).entries()


def read_pickle(path: Path) -> dict[str, np.ndarray]:
  """Return the tensors of a file that `torch.save` wrote, without running code in it.

  Raises:
    UserError: torch is not installed, or the file holds other objects.
  """
  check_not_pointer(path)
  try:
    import torch
  except ImportError:
    raise errors.UserError(
      f'{path}: is a pickle, which only PyTorch reads safely, and PyTorch is not installed. '
      f'Expected safetensors: '
      'where PyTorch is, safetensors.torch.save_file(torch.load(path, weights_only=True), new) '
      'makes them.'
    ) from None
  try:
    found = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:
    said = str(error).splitlines()[0]
    raise errors.UserError(
      f'{path}: holds more than tensors, or is damaged, and is not read: {said}'
    ) from error
  return {
    name: _numpy(tensor.detach())
    for name, tensor in found.items()
    if isinstance(tensor, torch.Tensor)
  }


def _numpy(tensor: Any) -> np.ndarray:
  import torch

  if tensor.dtype == torch.bfloat16:
    return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()


def _sharded(folder: Path, index: str) -> dict[str, _Entry]:
  where = _weight_map(folder, index)
  files = {name: _File(_inside(folder, name)).entries() for name in sorted({*where.values()})}
  if missing := sorted(name for name, file in where.items() if name not in files[file]):
    raise errors.UserError(
      f'{folder / index}: names tensors that its files have not: {", ".join(missing[:8])}.'
    )
  return {name: files[file][name] for name, file in where.items()}


def _weight_map(folder: Path, index: str) -> dict[str, str]:
  try:
    found = json.loads((folder / index).read_text('utf-8'))['weight_map']
    if isinstance(found, dict) and all(isinstance(v, str) for v in found.values()):
      return found
    raise ValueError('weight_map is not a table of file names')
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f'{folder / index}: is not an index of files: {error}. Expected a weight_map.'
    ) from error


def _inside(folder: Path, name: str) -> Path:
  """The file `name` of the folder, and of no other."""
  path = folder / name
  # A folder of links into a cache is fine; a name that leaves the folder is not.
  if Path(name).is_absolute() or '..' in Path(name).parts:
    raise errors.UserError(
      f'{folder}: the index names {name!r}, a file outside of the folder. Expected names within '
      f'the folder.'
    )
  if not path.is_file():
    raise errors.UserError(f'{path}: is missing, and the index names it.')
  return path
