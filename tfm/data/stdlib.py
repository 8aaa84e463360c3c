"""The source of the interpreter's own standard library: real text that every machine has."""

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

from tfm.data.text import stamp
from tfm.data.textdata import TextData

_LEFT_OUT = frozenset(
  {'test', 'tests', 'idle_test', 'site-packages', 'dist-packages', '__pycache__'}
)


@dataclasses.dataclass(frozen=True)
class Stdlib(TextData):
  """About 12 MB of Python: every `.py` of the standard library without its tests, each a document.

  Every `val_every`-th file in the order of their paths is held out. Files that are not in the
  encoding they declare are left out with a warning."""

  val_every: int = 20

  def documents(self, split: str) -> Iterator[str]:
    for i, text in enumerate(self._texts()):
      if (i % self.val_every == self.val_every - 1) == (split == 'val'):
        yield text

  def identity(self) -> dict[str, Any]:
    files = [stamp(path) for path in files_of()]
    return {
      'data': 'stdlib',
      'python': platform.python_version(),
      'val_every': self.val_every,
      'files': files,
    }

  def total_bytes(self) -> int:
    return sum(path.stat().st_size for path in files_of())

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.val_every < 2:
      yield f'val_every: is {self.val_every}. At least 2 was wanted, or nothing is left to train on.'

  def _texts(self) -> Iterator[str]:
    for path in files_of():
      if (text := source_of(path)) is None:
        logging.getLogger(__name__).warning(
          'data: %s is left out: it is not text in the encoding it declares.', path
        )
      elif text:
        yield text


def files_of() -> list[Path]:
  """The `.py` files of the standard library in the order of their paths, tests and installed
  packages left out.
  """
  found = []
  for folder, inside, names in os.walk(sysconfig.get_path('stdlib')):
    inside[:] = [name for name in inside if name not in _LEFT_OUT]
    found += [Path(folder, name) for name in names if name.endswith('.py')]
  return sorted(found)


def source_of(path: Path) -> str | None:
  """The text of a Python file in the encoding it declares (PEP 263; UTF-8 if none), or None if it
  is not that.
  """
  content = path.read_bytes()
  try:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding)
  except (SyntaxError, UnicodeDecodeError):
    return None
