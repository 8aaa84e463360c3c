"""Text files."""

from collections.abc import Iterator
import dataclasses
import glob
import os
from pathlib import Path
from typing import Any

from tfm.core.errors import UserError
from tfm.data.base import Data


@dataclasses.dataclass(frozen=True)
class Text(Data):
  """UTF-8 files, each a document: `files` is a path, a glob, a folder (all files below it), or several with commas.

  Held out are `val_files`, or else the last `val_tail` of the characters of all the text, in nanoGPT's way.
  """

  files: str = ''
  val_files: str = ''
  val_tail: float = 0.1

  def documents(self, split: str) -> Iterator[str]:
    if self.val_files:
      yield from map(read, self._paths('files' if split == 'train' else 'val_files'))
      return
    paths = self._paths('files')
    # One file is read once: its own length says where to cut.
    texts = [read(paths[0])] if len(paths) == 1 else None
    cut = int(sum(map(len, texts or map(read, paths))) * (1 - self.val_tail))
    for text in texts or map(read, paths):
      if part := text[: max(0, cut)] if split == 'train' else text[max(0, cut) :]:
        yield part
      cut -= len(text)

  def identity(self) -> dict[str, Any]:
    fields = ['files', 'val_files'] if self.val_files else ['files']
    tail = None if self.val_files else self.val_tail
    return {'data': 'text', 'val_tail': tail, **{name: [stamp(p) for p in self._paths(name)] for name in fields}}

  def separated(self) -> bool:
    return len(self._paths('files')) > 1 or (bool(self.val_files) and len(self._paths('val_files')) > 1)

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
    return [path for item in getattr(self, name).split(',') if item.strip() for path in _expand(name, item.strip())]


def read(path: Path) -> str:
  """The text of a UTF-8 file, its line ends as they are.

  *Raises:* `UserError` that names the file, and the offset of the first byte that is not UTF-8.
  """
  try:
    content = path.read_bytes()
  except OSError as error:
    raise UserError(f'data.files: cannot read {path}: {error.strerror}.') from error
  if not content:
    raise UserError(f'data.files: {path} is empty. Text was wanted.')
  try:
    return content.decode('utf-8')
  except UnicodeDecodeError as error:
    raise UserError(
      f'data.files: {path} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x} ({error.reason}). '
      'Convert it first, for example with iconv -t UTF-8.'
    ) from error


def stamp(path: Path) -> list[Any]:
  """What changes when a file does: its path, size and time of change."""
  try:
    stat = path.stat()
  except OSError as error:
    raise UserError(f'data.files: cannot read {path}: {error.strerror}.') from error
  return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _expand(name: str, item: str) -> list[Path]:
  path = Path(item).expanduser()
  if path.is_dir():
    hidden = lambda p: any(part.startswith('.') for part in p.relative_to(path).parts)
    found = sorted(p for p in path.rglob('*') if p.is_file() and not hidden(p))
  elif path.exists() or not glob.has_magic(item):
    return [path]
  else:
    found = sorted(p for p in map(Path, glob.glob(os.path.expanduser(item), recursive=True)) if p.is_file())
  if not found:
    raise UserError(f'data.{name}: no file matches {item!r}. A path, a glob or a folder with files was wanted.')
  return found
