"""The source of the interpreter's own standard library: real text that every machine has."""

from collections.abc import Iterator
import dataclasses
from pathlib import Path
import platform
import sysconfig
from typing import Any

from tfm.data.base import Data
from tfm.data.text import stamp

_LEFT_OUT = frozenset({'test', 'tests', 'idle_test', 'site-packages', 'dist-packages', '__pycache__'})


@dataclasses.dataclass(frozen=True)
class Stdlib(Data):
  """About 12 MB of Python: every `.py` of the standard library without its tests, each a document.

  Every `val_every`-th file in the order of their paths is held out. Files that are not UTF-8 are left out.
  """

  val_every: int = 20

  def documents(self, split: str) -> Iterator[str]:
    for i, (_, text) in enumerate(self._texts()):
      if (i % self.val_every == self.val_every - 1) == (split == 'val'):
        yield text

  def identity(self) -> dict[str, Any]:
    files = [stamp(path) for path in files_of()]
    return {'data': 'stdlib', 'python': platform.python_version(), 'val_every': self.val_every, 'files': files}

  def total_bytes(self) -> int:
    return sum(path.stat().st_size for path in files_of())

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.val_every < 2:
      yield f'val_every: is {self.val_every}. At least 2 was wanted, or nothing is left to train on.'

  def _texts(self) -> Iterator[tuple[Path, str]]:
    for path in files_of():
      try:
        text = path.read_bytes().decode('utf-8')
      except UnicodeDecodeError:
        continue
      if text:
        yield path, text


def files_of() -> list[Path]:
  """The `.py` files of the standard library in the order of their paths, tests and installed packages left out."""
  root = Path(sysconfig.get_path('stdlib'))
  inside = sorted(path.relative_to(root) for path in root.rglob('*.py'))
  return [root / path for path in inside if not _LEFT_OUT.intersection(path.parts[:-1])]
