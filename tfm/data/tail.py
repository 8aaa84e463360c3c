"""Split the documents of files: the last fraction of all characters is for validation.

A text file is split within its text, as in nanoGPT. Other documents stay whole, and a document that
starts before the cut is for training.
"""

from collections.abc import Iterator, Sequence
import functools
import itertools
from pathlib import Path
from typing import Any, NamedTuple

from tfm.data import readers, rejects
from tfm.data.paths import file_stamp
from tfm.data.progress import Progress
from tfm.data.readers import Document, Reading


class Cut(NamedTuple):
  """The place where validation begins.

  Attributes:
    file: The number of the file.
    characters: Characters of the file before the place.
  """

  file: int
  characters: int


def documents(
  paths: Sequence[Path], reading: Reading, fraction: float, split: str
) -> Iterator[Document]:
  """Yield the documents of a split.

  Args:
    paths: All files, in order.
    reading: How they are read.
    fraction: The fraction of the characters for validation, below 1. 0 is no validation.
    split: 'train' or 'val'.
  """
  cut = Cut(len(paths), 0)
  if fraction:
    stamps = tuple((str(path), *file_stamp(path)) for path in paths)
    cut = _find(stamps, reading, fraction)
  for number, path in enumerate(paths):
    if number == cut.file:
      yield from _part(path, reading, cut.characters, split)
    elif (number < cut.file) == (split == 'train'):
      yield from readers.documents(path, reading)


def _part(path: Path, reading: Reading, n: int, split: str) -> Iterator[Document]:
  """Yield the documents of the file with the cut, which is after `n` characters."""
  side = _before if split == 'train' else _after
  if not readers.is_text(path):
    texts = map(''.join, readers.documents(path, reading))
    yield from ([text] for text in side(texts, n, trims=False))
  elif n or split == 'val':
    yield side(readers.text(path, reading.invalid), n, trims=True)


def _before(texts: Iterator[str], n: int, trims: bool) -> Iterator[str]:
  """Yield the texts that start within `n` characters; `trims` the last one to them."""
  while n > 0 and (text := next(texts, None)) is not None:
    yield text[:n] if trims else text
    n -= len(text)


def _after(texts: Iterator[str], n: int, trims: bool) -> Iterator[str]:
  """Yield the texts that `_before` does not yield."""
  text = ''
  with rejects.collected(None):  # the other split counts them
    while n > 0:
      text = next(texts)
      n -= len(text)
  if trims and n < 0:
    yield text[n:]
  yield from texts


@functools.lru_cache(maxsize=8)
def _find(stamps: tuple[tuple[Any, ...], ...], reading: Reading, fraction: float) -> Cut:
  """Return the cut before the last `fraction` of all characters.

  Files are identified by their path and `file_stamp`. So each is counted once, and again if it
  changes.
  """
  files = [Path(path) for path, *_ in stamps]
  total = None
  if all(map(readers.is_plain, files)):
    total = sum(size for _, _, size, _ in stamps)
  counts = []
  with Progress('reading', total) as progress, rejects.collected(None):
    for file in files:
      counts.append(0)
      for text in itertools.chain.from_iterable(readers.documents(file, reading)):
        counts[-1] += len(text)
        progress.advance(len(text.encode()))
  left = int(sum(counts) * (1 - fraction))
  for number, count in enumerate(counts):
    if count > left:
      return Cut(number, left)
    left -= count
  return Cut(len(files), 0)
