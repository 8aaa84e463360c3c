"""Text files as a data source."""

import bisect
import codecs
from collections.abc import Iterator
import dataclasses
import functools
import glob
import itertools
import os
from pathlib import Path
from typing import Any

from tfm.core.errors import UserError
from tfm.data.progress import Progress
from tfm.data.textdata import TextData

_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Text(TextData):
  """UTF-8 files, each a document.

  Files may be larger than memory, because they are read in blocks.

  Attributes:
    files: A path, a glob, a folder (all files below it), or several of them with commas.
    val_files: The validation files, in the same form.
    val_tail: Without `val_files`, the last fraction of the characters of all text is for
      validation, as in nanoGPT.
  """

  files: str = ''
  val_files: str = ''
  val_tail: float = 0.1

  def documents(self, split: str) -> Iterator[str]:
    return map(''.join, self.streams(split))

  def streams(self, split: str) -> Iterator[Iterator[str]]:
    if self.val_files:
      yield from map(read, self._paths('files' if split == 'train' else 'val_files'))
      return
    paths = self._paths('files')
    if not self.val_tail:
      yield from map(read, paths if split == 'train' else [])
      return
    stamps = tuple((str(path), *file_stamp(path)) for path in paths)
    cut, byte = _tail(stamps, self.val_tail)
    for i, path in enumerate(paths):
      start, stop = (0, byte) if split == 'train' else (byte, stamps[i][2])
      if i == cut and start < stop:
        yield read(path, start, stop)
      elif i != cut and (i < cut) == (split == 'train'):
        yield read(path)

  def check_sources(self) -> None:
    self.identity()

  def identity(self) -> dict[str, Any]:
    fields = ['files', 'val_files'] if self.val_files else ['files']
    tail = None if self.val_files else self.val_tail
    identity: dict[str, Any] = {'data': 'text', 'val_tail': tail}
    for name in fields:
      identity[name] = [file_stamp(path) for path in self._paths(name)]
    return identity

  def separated(self) -> bool:
    names = ['files', 'val_files'] if self.val_files else ['files']
    return any(len(self._paths(name)) > 1 for name in names)

  def total_bytes(self) -> int:
    names = ['files', 'val_files'] if self.val_files else ['files']
    return sum(path.stat().st_size for name in names for path in self._paths(name))

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. Expected a path, a glob, a folder, or several of them with commas.'
    if not 0 <= self.val_tail < 1:
      yield f'val_tail: is {self.val_tail}. Expected a fraction from 0 to below 1.'

  def _paths(self, name: str) -> list[Path]:
    paths = []
    for item in getattr(self, name).split(','):
      if item.strip():
        paths += expand(name, item.strip())
    return paths


def read(path: Path, start: int = 0, stop: int | None = None) -> Iterator[str]:
  """Yield the text of a UTF-8 file in parts, with unchanged line ends.

  Args:
    path: The file.
    start: The first byte.
    stop: The end byte. Defaults to the end of the file.

  Yields:
    Parts of the text.

  Raises:
    UserError: The file cannot be read, is empty, or is not UTF-8. The message has the offset of
      the first invalid byte.
  """
  decoder = codecs.getincrementaldecoder('utf-8')()
  at, block = start, b'?'
  try:
    with open(path, 'rb') as file:
      file.seek(start)
      while block:
        block = file.read(_BLOCK if stop is None else min(_BLOCK, stop - at))
        pending = decoder.getstate()[0]
        if text := decoder.decode(block, final=not block):
          yield text
        at += len(block)
  except OSError as error:
    raise _unreadable(path, error) from error
  except UnicodeDecodeError as error:
    offset = at - len(pending) + error.start
    raise UserError(
      f'data.files: {path} is not UTF-8: byte {offset} is 0x{error.object[error.start]:02x} '
      f'({error.reason}). Expected UTF-8, for example from iconv -t UTF-8.'
    ) from error
  if at == 0:
    raise UserError(f'data.files: {path} is empty. Expected a file with text.')


def file_stamp(path: Path) -> list[Any]:
  """Return the path, size and modification time of a file, which change with its content."""
  try:
    stat = path.stat()
  except OSError as error:
    raise _unreadable(path, error) from error
  return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _unreadable(path: Path, error: OSError) -> UserError:
  return UserError(
    f'data.files: cannot read {path} ({error.strerror}). Expected a readable text file.'
  )


@functools.lru_cache(maxsize=8)
def _tail(stamps: tuple[tuple[Any, ...], ...], fraction: float) -> tuple[int, int]:
  """Return the file and the byte in it where the last `fraction` of all characters begins.

  Files are identified by their path and `file_stamp`. So each is counted once, and again if it
  changes.
  """
  files = [Path(path) for path, *_ in stamps]
  marks: list[tuple[int, int, int]] = []
  total = 0
  with Progress('reading', sum(size for _, _, size, _ in stamps)) as progress:
    for number, file in enumerate(files):
      byte = 0
      for text in read(file):
        marks.append((total, number, byte))
        total += len(text)
        byte += (size := len(text.encode()))
        progress.advance(size)
  cut = int(total * (1 - fraction))
  before, number, byte = marks[bisect.bisect_right(marks, cut, key=lambda mark: mark[0]) - 1]
  # Blocks that begin here may end up to a character later than the counted blocks.
  text = ''.join(itertools.islice(read(files[number], byte), 2))
  return number, byte + len(text[: cut - before].encode())


def expand(name: str, item: str) -> list[Path]:
  """Return the files of a path, a glob or a folder, sorted.

  Args:
    name: The field of the data source, for errors.
    item: The path, glob or folder.

  Returns:
    The files. A path without magic characters is returned unchecked.

  Raises:
    UserError: No file matches.
  """
  path = Path(item).expanduser()
  if path.is_dir():
    hidden = lambda p: any(part.startswith('.') for part in p.relative_to(path).parts)
    files = sorted(p for p in path.rglob('*') if p.is_file() and not hidden(p))
  elif path.exists() or not glob.has_magic(item):
    return [path]
  else:
    matches = glob.glob(os.path.expanduser(item), recursive=True)
    files = sorted(path for path in map(Path, matches) if path.is_file())
  if not files:
    raise UserError(
      f'data.{name}: no file matches {item!r}. Expected a path, a glob or a folder with files.'
    )
  return files
