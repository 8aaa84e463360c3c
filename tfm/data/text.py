"""Text files."""

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
  """UTF-8 files, each a document: `files` is a path, a glob, a folder (all files below it), or
  several with commas.

  Held out are `val_files`, or else the last `val_tail` of the characters of all the text, in
  nanoGPT's way. A file may be larger than the memory: it is read block by block."""

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
    stamps = tuple((str(path), *stamp(path)) for path in paths)
    cut, byte = _tail(stamps, self.val_tail)
    for i, path in enumerate(paths):
      start, stop = (0, byte) if split == 'train' else (byte, stamps[i][2])
      if i == cut and start < stop:
        yield read(path, start, stop)
      elif i != cut and (i < cut) == (split == 'train'):
        yield read(path)

  def identity(self) -> dict[str, Any]:
    fields = ['files', 'val_files'] if self.val_files else ['files']
    tail = None if self.val_files else self.val_tail
    return {
      'data': 'text',
      'val_tail': tail,
      **{name: [stamp(p) for p in self._paths(name)] for name in fields},
    }

  def separated(self) -> bool:
    return len(self._paths('files')) > 1 or (
      bool(self.val_files) and len(self._paths('val_files')) > 1
    )

  def total_bytes(self) -> int:
    names = ['files', 'val_files'] if self.val_files else ['files']
    return sum(path.stat().st_size for name in names for path in self._paths(name))

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. A path, a glob, a folder, or several of them with commas were wanted.'
    if not 0 <= self.val_tail < 1:
      yield f'val_tail: is {self.val_tail}. A fraction from 0 to below 1 was wanted.'

  def _paths(self, name: str) -> list[Path]:
    return [
      path
      for item in getattr(self, name).split(',')
      if item.strip()
      for path in _expand(name, item.strip())
    ]


def read(path: Path, start: int = 0, stop: int | None = None) -> Iterator[str]:
  """The text of a UTF-8 file from byte `start` to before `stop` (the end), in parts, its line ends
  as they are.

  *Raises:* `UserError` that names the file, and the offset of the first byte that is not UTF-8.
  """
  decoder = codecs.getincrementaldecoder('utf-8')()
  at, block = start, b'?'
  try:
    with open(path, 'rb') as file:
      file.seek(start)
      while block:
        block = file.read(_BLOCK if stop is None else min(_BLOCK, stop - at))
        held = decoder.getstate()[0]
        if text := decoder.decode(block, final=not block):
          yield text
        at += len(block)
  except OSError as error:
    raise UserError(f'data.files: cannot read {path}: {error.strerror}.') from error
  except UnicodeDecodeError as error:
    where = at - len(held) + error.start
    raise UserError(
      f'data.files: {path} is not UTF-8: byte {where} is 0x{error.object[error.start]:02x} '
      f'({error.reason}). '
      'Convert it first, for example with iconv -t UTF-8.'
    ) from error
  if at == 0:
    raise UserError(f'data.files: {path} is empty. Text was wanted.')


def stamp(path: Path) -> list[Any]:
  """What changes when a file does: its path, size and time of change."""
  try:
    stat = path.stat()
  except OSError as error:
    raise UserError(f'data.files: cannot read {path}: {error.strerror}.') from error
  return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


@functools.lru_cache(maxsize=8)
def _tail(stamps: tuple[tuple[Any, ...], ...], fraction: float) -> tuple[int, int]:
  """The number of the file, and the byte in it, where the last `fraction` of all characters begins.

  The files are known by their path and `stamp`, so that none is counted twice and a changed one is
  counted anew."""
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
  # Blocks that begin here end elsewhere than those that were counted, by up to a character.
  text = ''.join(itertools.islice(read(files[number], byte), 2))
  return number, byte + len(text[: cut - before].encode())


def _expand(name: str, item: str) -> list[Path]:
  path = Path(item).expanduser()
  if path.is_dir():
    hidden = lambda p: any(part.startswith('.') for part in p.relative_to(path).parts)
    found = sorted(p for p in path.rglob('*') if p.is_file() and not hidden(p))
  elif path.exists() or not glob.has_magic(item):
    return [path]
  else:
    found = sorted(
      p for p in map(Path, glob.glob(os.path.expanduser(item), recursive=True)) if p.is_file()
    )
  if not found:
    raise UserError(
      f'data.{name}: no file matches {item!r}. A path, a glob or a folder with files was wanted.'
    )
  return found
