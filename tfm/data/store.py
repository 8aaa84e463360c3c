"""Tokenised text on disk: a folder of memory-mapped token files, written atomically."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import dataclasses
import errno
import fcntl
import functools
import hashlib
import json
import logging
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data import identity as identity_lib
from tfm.data import tokenizer
from tfm.data.mapped import Mapped
from tfm.data.store_writer import META, file_row

_FORMAT = 1
_logger = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Split:
  """The tokens of a split.

  Attributes:
    tokens: All tokens, concatenated.
    starts: The start of each document, and the end of the last one.
    text_bytes: Bytes of text.
  """

  tokens: NDArray[Any]
  starts: NDArray[np.int64]
  text_bytes: int


@dataclasses.dataclass(frozen=True)
class Store:
  """An open store.

  Attributes:
    path: Its folder.
    splits: Each split that has text.
    meta: The content of its `meta.json`.
  """

  path: Path
  splits: dict[str, Split]
  meta: dict[str, Any]

  @classmethod
  def read(cls, path: Path) -> 'Store':
    """Return the store of a folder. The sizes of its files are checked.

    Raises:
      UserError: A file is missing or has another size.
    """
    try:
      meta = json.loads((path / META).read_text('utf-8'))
      dtype = np.dtype(meta['dtype'])
      sizes = {
        f'{name}.bin': row['tokens'] * dtype.itemsize for name, row in meta['splits'].items()
      }
      sizes |= {name: row['size'] for name, row in meta.get('files', {}).items()}
      for name, size in sizes.items():
        if (found := (path / name).stat().st_size) != size:
          raise _damaged(path / name, f'has {found} bytes instead of {size}')
      splits = {}
      for name, row in meta['splits'].items():
        tokens = Mapped(path / f'{name}.bin', dtype, 'r', shape=(row['tokens'],))
        starts = np.load(path / f'{name}.starts.npy', mmap_mode='r')
        splits[name] = Split(tokens, starts, row['bytes'])
    except OSError as error:
      raise _damaged(Path(error.filename or path), error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      if isinstance(error, UserError):
        raise
      raise _damaged(path / META, f'is not the description of a store: {error!r}') from error
    return cls(path, splits, meta)

  @functools.cached_property
  def vocabulary(self) -> tokenizer.Vocabulary:
    """The vocabulary of the text."""
    return tokenizer.load(self.path)

  @property
  def content(self) -> str:
    """A hash of all tokens."""
    return self.meta['content']

  def check(self) -> None:
    """Compare the hash of every file with the hash in `meta.json`.

    Raises:
      UserError: The content of a file has changed.
    """
    for name, row in self.meta.get('files', {}).items():
      if file_row(self.path / name) != row:
        raise _damaged(self.path / name, 'has another SHA-256 than when it was written')
    digest = hashlib.sha256()
    for name in self.splits:
      with open(self.path / f'{name}.bin', 'rb') as file:
        while block := file.read(1 << 22):
          digest.update(block)
    if digest.hexdigest() != self.content:
      raise _damaged(self.path / META, 'has another hash than the tokens')


def _damaged(file: Path, problem: str) -> UserError:
  return UserError(
    f'data.cache: {file} is damaged ({problem}). Expected an unchanged token store. Rebuild it '
    f'with `tfm data --config=... --rebuild`, or delete {file.parent}.'
  )


_REBUILD = contextvars.ContextVar('rebuild', default=False)


@contextlib.contextmanager
def rebuilding(rebuild: bool = True) -> Iterator[None]:
  """Delete each store that is opened within the context, and write it again."""
  token = _REBUILD.set(rebuild)
  try:
    yield
  finally:
    _REBUILD.reset(token)


def default_cache() -> Path:
  """Return `$TFM_CACHE`, else `$XDG_CACHE_HOME/tfm`, else `~/.cache/tfm`."""
  if chosen := os.environ.get('TFM_CACHE'):
    return Path(chosen).expanduser()
  return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'tfm'


def open_store(cache: Path, identity: dict[str, Any], write: Callable[[Path], None]) -> Store:
  """Open a token store, which is written first if needed.

  A store is written under a temporary name and renamed, so readers never open an incomplete one.
  The files of a killed writer are kept, and the next writer continues them. Processes that need the
  same store take turns by a lock: the first writes, the others read.

  Args:
    cache: The folder of all stores.
    identity: JSON that identifies the store.
    write: Writes the store into a folder, or continues it there.

  Returns:
    The open store.

  Raises:
    UserError: The cache cannot be written, or the store is damaged.
  """
  identity = {'format': _FORMAT, **identity}
  content = json.dumps(identity, sort_keys=True)
  key = hashlib.sha256(content.encode()).hexdigest()[:24]
  path = cache / key
  if _REBUILD.get() or not path.is_dir():
    with _report_full_disk(cache), _locked(cache, key):
      if _REBUILD.get():
        shutil.rmtree(path, ignore_errors=True)
      if not path.is_dir():
        _write(cache, key, identity, write)
  return Store.read(path)


def _write(cache: Path, key: str, identity: dict[str, Any], write: Callable[[Path], None]) -> None:
  # This process holds the lock of the key. A partial folder is left from a killed writer.
  folder = cache / f'.{key}.partial'
  for stale in cache.glob(f'.{key}.*'):
    if stale != folder:
      shutil.rmtree(stale)
  if changes := identity_lib.changes(cache, identity):
    _logger.warning('data: the text is tokenised again: %s.', changes)
  folder.mkdir(exist_ok=True)
  try:
    write(folder)
    (folder / identity_lib.FILE).write_text(json.dumps(identity), 'utf-8')
    for file in folder.iterdir():
      with open(file, 'rb+') as f:
        os.fsync(f.fileno())
    folder.rename(cache / key)
  except Exception:
    shutil.rmtree(folder, ignore_errors=True)
    raise


@contextlib.contextmanager
def _locked(cache: Path, key: str) -> Iterator[None]:
  cache.mkdir(parents=True, exist_ok=True)
  with open(cache / f'{key}.lock', 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _report_full_disk(cache: Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    if error.errno in _FULL:
      raise UserError(
        f'data.cache: no space for the token store in {cache} ({error.strerror}). Nothing was '
        f'kept. Expected more free space, or another folder in data.cache or TFM_CACHE.'
      ) from error
    if error.filename is not None and str(error.filename).startswith(str(cache)):
      raise UserError(
        f'data.cache: cannot write the token store in {cache} ({error.strerror}). '
        'Expected a writable folder in data.cache or TFM_CACHE.'
      ) from error
    raise
