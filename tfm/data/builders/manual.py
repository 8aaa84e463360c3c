"""Files of a builder in the folder that the user points at."""

from pathlib import Path
from typing import Any

from tfm.core.errors import UserError


def find(dl_manager: Any, pattern: str, source: str) -> list[Path]:
  """Return the files that match a glob below the manual folder, sorted.

  Args:
    dl_manager: The download manager of TFDS.
    pattern: The glob.
    source: Where the files come from, for errors.

  Raises:
    UserError: No file matches.
  """
  folder = Path(dl_manager.manual_dir)
  files = sorted(path for path in folder.rglob(pattern) if path.is_file())
  if not files:
    raise UserError(f'data.manual_dir: {folder} has no {pattern}. Expected it from {source}.')
  return files


def find_one(dl_manager: Any, pattern: str, source: str) -> Path:
  """Return the only file that matches a glob below the manual folder.

  Raises:
    UserError: None or several match.
  """
  first, *others = find(dl_manager, pattern, source)
  if others:
    raise UserError(
      f'data.manual_dir: {first} and {others[0]} both match {pattern}. Expected only one such file.'
    )
  return first


def damaged(path: Path, problem: str) -> UserError:
  """Return the error of a file with another format."""
  return UserError(f'data.manual_dir: {path} {problem}. Expected the file of the package.')
