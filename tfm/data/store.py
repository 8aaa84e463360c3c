"""Tokenised text on disk: a folder of memory-mapped token files, written atomically."""

import array
from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
from pathlib import Path
import secrets
import shutil
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data import text_chunks, tokenizer
from tfm.data.framing import Framing
from tfm.data.progress import Progress

SPLITS = ('train', 'val')
_META = 'meta.json'
_FORMAT = 1
# Characters of a batch, and of a chunk of it. The chunks of a batch are encoded in parallel.
_BATCH = 1 << 22
_CHUNK = 1 << 17
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
    vocabulary: The vocabulary of the text.
    splits: Each split that has text.
    content: A hash of all tokens.
  """

  path: Path
  vocabulary: tokenizer.Vocabulary
  splits: dict[str, Split]
  content: str

  @classmethod
  def read(cls, path: Path) -> 'Store':
    meta = json.loads((path / _META).read_text('utf-8'))
    splits = {}
    for name, row in meta['splits'].items():
      tokens = np.memmap(path / f'{name}.bin', np.dtype(meta['dtype']), 'r', shape=(row['tokens'],))
      splits[name] = Split(tokens, np.load(path / f'{name}.starts.npy'), row['bytes'])
    return cls(path, tokenizer.load(path), splits, meta['content'])


def default_cache() -> Path:
  """Return `$TFM_CACHE`, else `$XDG_CACHE_HOME/tfm`, else `~/.cache/tfm`."""
  if chosen := os.environ.get('TFM_CACHE'):
    return Path(chosen).expanduser()
  return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'tfm'


def open_store(cache: Path, identity: dict[str, Any], write: Callable[[Path], None]) -> Store:
  """Open a token store, which is written first if needed.

  A store is written under a temporary name and renamed, so readers never open an incomplete one.
  Processes that need the same store take turns by a lock: the first writes, the others read.

  Args:
    cache: The folder of all stores.
    identity: JSON that identifies the store.
    write: Writes the store into an empty folder.

  Returns:
    The open store.

  Raises:
    UserError: The cache cannot be written.
  """
  content = json.dumps({'format': _FORMAT, **identity}, sort_keys=True)
  key = hashlib.sha256(content.encode()).hexdigest()[:24]
  path = cache / key
  if not _complete(path):
    with _report_full_disk(cache), _locked(cache, key):
      if not _complete(path):
        _write(cache, key, write)
  return Store.read(path)


def write_store(
  folder: Path,
  vocabulary: tokenizer.Vocabulary,
  documents: tokenizer.Documents,
  framing: Framing,
  total: int | None = None,
) -> None:
  """Write the vocabulary and the tokens of every split to `folder`.

  Args:
    folder: An empty folder.
    vocabulary: Encodes the text.
    documents: The documents of a split, in parts of their text.
    framing: Tokens around each document. Without begin tokens, the end tokens also precede the
      first document, so that the first token of every document is predicted.
    total: Bytes of text, for the remaining time. None if unknown.
  """
  dtype = np.dtype('<u2' if vocabulary.size <= 1 << 16 else '<u4')
  vocabulary.save(folder)
  splits, digest = {}, hashlib.sha256()
  with Progress('tokenising', total) as progress:
    for name in SPLITS:
      if row := _write_split(
        folder, name, vocabulary, documents(name), framing, dtype, digest, progress
      ):
        splits[name] = row
  _write_meta(folder, splits, dtype, digest)


def write_arrays(
  folder: Path,
  vocabulary: tokenizer.Vocabulary,
  documents: Callable[[str], Iterable[tuple[NDArray[Any], int]]],
  limit: int,
) -> None:
  """Write the vocabulary and the numbers of every split to `folder`.

  Args:
    folder: An empty folder.
    vocabulary: The vocabulary of the text.
    documents: Returns the documents of a split: the numbers of each, and its bytes of text.
    limit: An upper bound: all numbers are below.
  """
  dtype = np.dtype('<u2' if limit <= 1 << 16 else '<u4')
  vocabulary.save(folder)
  splits, digest = {}, hashlib.sha256()
  for name in SPLITS:
    starts, text_bytes, at = array.array('q'), 0, 0
    with open(folder / f'{name}.bin', 'wb') as file:
      for numbers, size in documents(name):
        block = numbers.astype(dtype).tobytes()
        digest.update(block)
        file.write(block)
        starts.append(at)
        at, text_bytes = at + len(numbers), text_bytes + size
    if not starts:
      (folder / f'{name}.bin').unlink()
      continue
    np.save(folder / f'{name}.starts.npy', np.array([*starts, at], np.int64))
    splits[name] = {'tokens': at, 'documents': len(starts), 'bytes': text_bytes}
  _write_meta(folder, splits, dtype, digest)


def _write_meta(
  folder: Path, splits: dict[str, dict[str, int]], dtype: np.dtype[Any], digest: 'hashlib._Hash'
) -> None:
  meta = {'splits': splits, 'dtype': dtype.str, 'content': digest.hexdigest()}
  (folder / _META).write_text(json.dumps(meta, indent=1), 'utf-8')


def _write_split(
  folder: Path,
  name: str,
  vocabulary: tokenizer.Vocabulary,
  documents: Iterable[Iterable[str]],
  framing: Framing,
  dtype: np.dtype[Any],
  digest: 'hashlib._Hash',
  progress: Progress,
) -> dict[str, int] | None:
  begin, end = (np.array(ids, dtype) for ids in framing)
  starts = array.array('q')
  text_bytes, at = 0, 0

  def put(file: IO[bytes], ids: NDArray[Any]) -> int:
    block = ids.astype(dtype).tobytes()
    digest.update(block)
    file.write(block)
    return len(ids)

  with open(folder / f'{name}.bin', 'wb') as file:
    for batch in _batches(documents, vocabulary.split_point):
      for (text, begins), ids in zip(batch, _encoded(vocabulary, batch), strict=True):
        if begins:
          if starts or not begin.size:
            at += put(file, end)
          starts.append(at)
          at += put(file, begin)
        at += put(file, ids)
        text_bytes += (size := len(text.encode('utf-8', 'surrogatepass')))
        progress.advance(size)
    if starts:
      at += put(file, end)
  if not starts:
    (folder / f'{name}.bin').unlink()
    return None
  np.save(folder / f'{name}.starts.npy', np.array([*starts, at], np.int64))
  return {'tokens': at, 'documents': len(starts), 'bytes': text_bytes}


def _batches(
  documents: Iterable[Iterable[str]], split_point: Callable[[str], int]
) -> Iterator[list[tuple[str, bool]]]:
  """Yield batches of (chunk of text, whether it begins a document)."""
  batch, size = [], 0
  for document in documents:
    begins = True
    for text in text_chunks.chunks(document, split_point, _CHUNK):
      batch.append((text, begins))
      begins = False
      if (size := size + len(text)) >= _BATCH:
        yield batch
        batch, size = [], 0
  if batch:
    yield batch


def _encoded(
  vocabulary: tokenizer.Vocabulary, batch: list[tuple[str, bool]]
) -> Iterator[NDArray[np.int32]]:
  first = iter(vocabulary.encode_batch([text for text, begins in batch if begins]))
  rest = [text for text, begins in batch if not begins]
  continued = iter(vocabulary.continuation.encode_batch(rest))
  for _, begins in batch:
    yield next(first if begins else continued)


def _complete(path: Path) -> bool:
  try:
    meta = json.loads((path / _META).read_text('utf-8'))
    width = np.dtype(meta['dtype']).itemsize
    sizes = {name: row['tokens'] * width for name, row in meta['splits'].items()}
    return all((path / f'{name}.bin').stat().st_size == size for name, size in sizes.items())
  except (OSError, ValueError, KeyError):
    return False


def _write(cache: Path, key: str, write: Callable[[Path], None]) -> None:
  # This process holds the lock of the key, so other folders are left from interrupted writers.
  for stale in [cache / key, *cache.glob(f'.{key}.*')]:
    if stale.is_dir():
      shutil.rmtree(stale)
  folder = cache / f'.{key}.{secrets.token_hex(4)}'
  folder.mkdir()
  try:
    write(folder)
    for file in folder.iterdir():
      with open(file, 'rb+') as f:
        os.fsync(f.fileno())
    folder.rename(cache / key)
  finally:
    shutil.rmtree(folder, ignore_errors=True)


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
