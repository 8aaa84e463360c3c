"""The source code of Python's standard library: real text on every machine."""

from collections.abc import Iterator
import dataclasses
import io
import logging
import os
from pathlib import Path
import platform
import sysconfig
import tokenize
from typing import Any

from tfm.data.paths import file_stamp
from tfm.data.textdata import TextData

_EXCLUDED = frozenset(
  {'test', 'tests', 'idle_test', 'site-packages', 'dist-packages', '__pycache__'}
)


@dataclasses.dataclass(frozen=True)
class Stdlib(TextData):
  """The `.py` files of the standard library without its tests, about 12 MB of text.

  Each file is a document. Files that are not in their declared encoding are left out with a
  warning.

  Attributes:
    val_every: Every n-th file, in the order of paths, is for validation.
  """

  val_every: int = 20

  def documents(self, split: str) -> Iterator[str]:
    for i, text in enumerate(self._texts()):
      if (i % self.val_every == self.val_every - 1) == (split == 'val'):
        yield text

  def identity(self) -> dict[str, Any]:
    files = [file_stamp(path) for path in source_files()]
    return {
      'data': 'stdlib',
      'python': platform.python_version(),
      'val_every': self.val_every,
      'files': files,
    }

  def total_bytes(self) -> int:
    return sum(path.stat().st_size for path in source_files())

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.val_every < 2:
      yield f'val_every: is {self.val_every}, which leaves no file to train on. Expected 2 or more.'

  def _texts(self) -> Iterator[str]:
    for path in source_files():
      if (text := read_source(path)) is None:
        logging.getLogger(__name__).warning(
          'data: %s is skipped, because it is not text in its declared encoding.', path
        )
      elif text:
        yield text


def source_files() -> list[Path]:
  """Return the `.py` files of the standard library, sorted, without tests and packages."""
  files = []
  for folder, inside, names in os.walk(sysconfig.get_path('stdlib')):
    inside[:] = [name for name in inside if name not in _EXCLUDED]
    files += [Path(folder, name) for name in names if name.endswith('.py')]
  return sorted(files)


def read_source(path: Path) -> str | None:
  """Return the text of a Python file in its declared encoding (PEP 263, default UTF-8).

  Returns:
    None if the file is not valid in that encoding.
  """
  content = path.read_bytes()
  try:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding)
  except (SyntaxError, UnicodeDecodeError):
    return None
