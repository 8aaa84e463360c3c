"""Folders that are written completely or not at all."""

from collections.abc import Iterator
import contextlib
from pathlib import Path
import secrets
import shutil

from tfm.core import errors


def check_new(path: str | Path) -> Path:
  """Return the path of a folder that does not exist yet.

  Raises:
    UserError: The path exists.
  """
  folder = Path(path).expanduser()
  if folder.exists():
    raise errors.UserError(f'{folder}: exists already. Expected a new folder.')
  return folder


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
  """Yield an empty hidden folder that is renamed to `path` at the end, or deleted after an error.

  The files get the permissions of the process's umask, whatever library wrote them.

  Raises:
    UserError: The path exists.

  Example:
    with new_folder('runs/published') as half:
      (half / 'config.json').write_text('{}')
  """
  folder = check_new(path)
  folder.parent.mkdir(parents=True, exist_ok=True)
  half = folder.parent.absolute() / f'.{folder.name}-{secrets.token_hex(4)}'
  half.mkdir()
  try:
    yield half
    set_permissions(half)
    half.rename(folder)
  except BaseException:
    shutil.rmtree(half, ignore_errors=True)
    raise


def set_permissions(folder: Path) -> None:
  """Give all files in a folder the permissions of its mode, without execution."""
  mode = folder.stat().st_mode & 0o666
  for file in folder.rglob('*'):
    if file.is_file() and not file.is_symlink():
      file.chmod(mode)
