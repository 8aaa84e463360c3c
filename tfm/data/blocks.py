"""The bytes of a plain or compressed file, in blocks of bounded size."""

from collections.abc import Callable, Iterator
import gzip
import importlib
from pathlib import Path
from typing import Any
import zlib

from tfm.core.errors import UserError

#: Bytes of a block.
_BLOCK = 1 << 20
#: Compressed bytes that zstandard gets at a time. Text grows about 3 to 10 times.
_ZSTD_BLOCK = 1 << 16


def blocks(path: Path) -> Iterator[bytes]:
  """Yield the content of a file, decompressed by its suffix.

  Raises:
    UserError: The file cannot be read or is damaged, or a package is missing.
  """
  try:
    yield from OPENERS.get(path.suffix.lower(), _plain)(path)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise damaged(path, error) from error
  except OSError as error:
    raise unreadable(path, error) from error


def lines(content: Iterator[bytes]) -> Iterator[bytes]:
  """Yield the lines of blocks, without line feeds."""
  parts: list[bytes] = []
  for block in content:
    first, *others = block.split(b'\n')
    parts.append(first)
    if others:
      yield b''.join(parts)
      yield from others[:-1]
      parts = [others[-1]]
  if last := b''.join(parts):
    yield last


def package(name: str, needs: str) -> Any:
  """Return an optional package. `needs` begins the error, as in 'a.zst needs'.

  Raises:
    UserError: It is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise UserError(
      f"data: {needs} the package {error.name}. Expected it installed, by: pip install 'tfm[files]'"
    ) from error


def zstandard(path: Path) -> Any:
  """Return the package that reads `.zst` files."""
  return package('zstandard', f'{path} needs')


def unreadable(path: Path, error: OSError) -> UserError:
  """Return the error of a file that cannot be read."""
  return UserError(
    f'data.files: cannot read {path} ({error.strerror or error}). Expected a readable file.'
  )


def damaged(path: Path, error: object) -> UserError:
  """Return the error of a file with wrong content."""
  return UserError(f'data.files: {path} is damaged ({error}). Expected a complete file.')


def _plain(path: Path) -> Iterator[bytes]:
  with open(path, 'rb') as file:
    while block := file.read(_BLOCK):
      yield block


def _gzip(path: Path) -> Iterator[bytes]:
  with gzip.open(path, 'rb') as file:
    while block := file.read(_BLOCK):
      yield block


def _zstd(path: Path) -> Iterator[bytes]:
  library = zstandard(path)
  whole = True
  frames = library.ZstdDecompressor()
  with open(path, 'rb') as file:
    while content := file.read(_ZSTD_BLOCK):
      while content:
        if whole:
          frame = frames.decompressobj()
        try:
          block = frame.decompress(content)
        except library.ZstdError as error:
          raise damaged(path, error) from error
        whole, content = frame.eof, frame.unused_data
        if block:
          yield block
  if not whole:
    raise damaged(path, 'it ends within a frame')


#: Compressed files by suffix.
OPENERS: dict[str, Callable[[Path], Iterator[bytes]]] = {'.gz': _gzip, '.zst': _zstd}
