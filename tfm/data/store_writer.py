"""Write the tokens of a text source to a folder, and continue after an interruption."""

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import hashlib
import itertools
import json
import logging
from pathlib import Path
import shutil
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tfm.data import journal as journal_lib
from tfm.data import rejects, text_chunks, tokenizer
from tfm.data.framing import Framing
from tfm.data.journal import Changed, Journal, Place
from tfm.data.progress import Progress
from tfm.data.rejects import Rejects, collected, reject

SPLITS = ('train', 'val')
META = 'meta.json'
# Characters of a batch, and of a chunk of it. The chunks of a batch are encoded in parallel.
_BATCH = 1 << 22
_CHUNK = 1 << 17
#: Bytes of text after which the journal is saved.
_SAVE = 1 << 25
_ROW = ('tokens', 'documents', 'characters', 'bytes', 'rejected')


def write_store(
  folder: Path,
  vocabulary: tokenizer.Vocabulary,
  documents: tokenizer.Documents,
  framing: Framing,
  total: int | None = None,
) -> None:
  """Write the vocabulary and the tokens of every split to `folder`.

  Args:
    folder: An empty folder, or one with the files of an interrupted call. Its tokens are kept.
    vocabulary: Encodes the text. For an interrupted call that of `saved_vocabulary`.
    documents: The documents of a split, in parts of their text.
    framing: Tokens around each document. Without begin tokens, the end tokens also precede the
      first document, so that the first token of every document is predicted.
    total: Bytes of text, for the remaining time. None if unknown.
  """
  dtype = np.dtype('<u2' if vocabulary.size <= 1 << 16 else '<u4')
  journal = Journal(folder, dtype)
  if not journal.restore():
    journal = _started(folder, vocabulary, dtype)
  try:
    _write_splits(journal, vocabulary, documents, framing, total)
  except Changed:
    journal = _started(folder, vocabulary, dtype)
    _write_splits(journal, vocabulary, documents, framing, total)
  _finish(journal)


def saved_vocabulary(folder: Path) -> tokenizer.Vocabulary | None:
  """Return the vocabulary of an interrupted call of `write_store`, or None."""
  return tokenizer.load(folder) if journal_lib.is_there(folder) else None


def file_row(path: Path) -> dict[str, Any]:
  """Return the size and the SHA-256 of a file."""
  with open(path, 'rb') as file:
    return {'size': path.stat().st_size, 'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}


def _started(folder: Path, vocabulary: tokenizer.Vocabulary, dtype: np.dtype[Any]) -> Journal:
  """Empty the folder, save the vocabulary and return a new journal."""
  for path in folder.iterdir():
    path.unlink()
  vocabulary.save(folder)
  journal = Journal(folder, dtype)
  journal.save()
  return journal


def _write_splits(
  journal: Journal,
  vocabulary: tokenizer.Vocabulary,
  documents: tokenizer.Documents,
  framing: Framing,
  total: int | None,
) -> None:
  """Write the splits that the journal lacks."""
  with Progress('tokenising', total) as progress:
    for row in journal.splits.values():
      progress.advance(row['bytes'])
    for name in SPLITS:
      if name in journal.splits:
        continue
      place = journal.place = journal.place or Place(name)
      progress.advance(place.bytes)
      found = Rejects()
      with collected(found):
        _write_split(journal, place, vocabulary, documents(name), framing, progress)
      row = dataclasses.asdict(place) | {'rejected': found.summary()}
      journal.splits[name] = {key: row[key] for key in _ROW}
      journal.place = None
      journal.save()


def _write_split(
  journal: Journal,
  place: Place,
  vocabulary: tokenizer.Vocabulary,
  documents: Iterable[Iterable[str]],
  framing: Framing,
  progress: Progress,
) -> None:
  """Append the tokens and starts of a split from `place` to its end."""
  begin, end = (np.array(ids, journal.dtype) for ids in framing)
  part = journal.folder / journal_lib.starts_file(place.split)
  saved = place.bytes

  def put(file: IO[bytes], ids: NDArray[Any]) -> None:
    block = ids.astype(journal.dtype).tobytes()
    journal.digest.update(block)
    file.write(block)
    place.tokens += len(ids)

  with open(journal.folder / f'{place.split}.bin', 'ab') as file, open(part, 'ab') as starts:
    file.truncate(place.tokens * journal.dtype.itemsize)
    starts.truncate(place.documents * 8)
    for batch in _batches(_rest(documents, place), vocabulary.split_point):
      for (text, begins), ids in zip(batch, _encoded(vocabulary, batch), strict=True):
        if begins:
          if place.documents or not begin.size:
            put(file, end)
          starts.write(_int64(place.tokens))
          put(file, begin)
          place.documents, place.done = place.documents + 1, 0
        put(file, ids)
        size = len(text) if text.isascii() else len(text.encode('utf-8', 'surrogatepass'))
        place.done += len(text)
        place.characters += len(text)
        place.bytes += size
        progress.advance(size)
      if place.bytes - saved >= _SAVE:
        journal.save(file, starts)
        saved = place.bytes
    if place.documents:
      put(file, end)
    starts.write(_int64(place.tokens))
  _write_starts(part, journal.folder / f'{place.split}.starts.npy', place.documents + 1)


def _rest(documents: Iterable[Iterable[str]], place: Place) -> Iterator[tuple[Iterable[str], bool]]:
  """Yield the documents after a place with text, and whether each begins there.

  Raises:
    Changed: The documents end before the place.
  """
  left, done = place.documents, place.done
  for document in documents:
    parts = iter(document)
    first = next(filter(None, parts), None)
    if first is None:
      reject('empty documents skipped')
      continue
    parts = itertools.chain([first], parts)
    left -= 1
    if left < 0:
      yield parts, True
    elif left:
      collections.deque(parts, maxlen=0)  # reads to the end, because invalid text is counted
    else:
      yield _after(parts, done), False
  if left > 0:
    raise Changed


def _after(parts: Iterator[str], characters: int) -> Iterator[str]:
  """Yield the text after the first `characters`."""
  for part in parts:
    if characters < len(part):
      yield part[characters:]
    characters = max(0, characters - len(part))
  if characters:
    raise Changed


def _batches(
  documents: Iterable[tuple[Iterable[str], bool]], split_point: Callable[[str], int]
) -> Iterator[list[tuple[str, bool]]]:
  """Yield batches of (chunk of text, whether it begins a document)."""
  batch, size = [], 0
  for document, begins in documents:
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


def _int64(number: int) -> bytes:
  return number.to_bytes(8, 'little')


def _write_starts(part: Path, path: Path, n: int) -> None:
  """Write `n` numbers of a file of int64 as `.npy`, without reading them into memory."""
  header = {'descr': '<i8', 'fortran_order': False, 'shape': (n,)}
  with open(part, 'rb') as source, open(path, 'wb') as file:
    np.lib.format.write_array_header_1_0(file, header)
    shutil.copyfileobj(source, file)


def _finish(journal: Journal) -> None:
  """Write the description of a complete store, and remove the journal."""
  folder, splits, rejected = journal.folder, {}, {}
  (folder / journal_lib.FILE).unlink()
  for name, row in journal.splits.items():
    (folder / journal_lib.starts_file(name)).unlink()
    rejected[name] = row['rejected']
    if row['documents']:
      splits[name] = {key: row[key] for key in _ROW[:-1]}
    else:
      (folder / f'{name}.bin').unlink()
      (folder / f'{name}.starts.npy').unlink()
  meta = {
    'splits': splits,
    'dtype': journal.dtype.str,
    'content': journal.digest.hexdigest(),
    'rejected': rejected,
    'files': {file.name: file_row(file) for file in sorted(folder.iterdir())},
  }
  (folder / META).write_text(json.dumps(meta, indent=1), 'utf-8')
  for name, summary in rejected.items():
    for line in rejects.lines(summary):
      logging.getLogger(__name__).warning('data: %s in the %s split.', line, name)
