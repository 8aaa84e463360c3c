"""Expand the file fields of a source, and identify the content of files."""

from collections.abc import Iterator
import glob
import os
from pathlib import Path
from typing import Any

from tfm.core.errors import UserError
from tfm.data import blocks


def file_stamp(path: Path) -> list[Any]:
  """Return the path, size and modification time of a file, which change with its content."""
  try:
    stat = path.stat()
  except OSError as error:
    raise blocks.unreadable(path, error) from error
  return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def expand(text: str, where: str) -> list[Path]:
  """Return the files of a list of paths, globs and folders.

  Args:
    text: The list, with commas. A folder is all files below it, without hidden files.
    where: The field in errors, such as 'data.files'.

  Raises:
    UserError: A glob or folder has no file.
  """
  items = (item.strip() for item in text.split(','))
  return [path for item in items if item for path in _expand(item, where)]


def _expand(item: str, where: str) -> Iterator[Path]:
  path = Path(item).expanduser()
  if path.is_dir():
    hidden = lambda p: any(part.startswith('.') for part in p.relative_to(path).parts)
    files = sorted(p for p in path.rglob('*') if p.is_file() and not hidden(p))
  elif path.exists() or not glob.has_magic(item):
    files = [path]
  else:
    matches = glob.glob(os.path.expanduser(item), recursive=True)
    files = sorted(path for path in map(Path, matches) if path.is_file())
  if not files:
    raise UserError(
      f'{where}: no file matches {item!r}. Expected a path, a glob or a folder with files.'
    )
  yield from files
