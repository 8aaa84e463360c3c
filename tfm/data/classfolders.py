"""Files sorted into folders: a class is a folder, and its files are split into training and
validation.
"""

from collections.abc import Callable
import dataclasses
from pathlib import Path

from tfm.core.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class ClassFolders:
  """The files below `root/CLASS` that match `pattern` and that `accepts` takes.

  Attributes: root: The folder of the classes. classes: The folders that count, in the order of
    their labels. Empty: all of them by name. pattern: A glob below each class. val_root: A folder
    of the same classes for validation. val_every: Without it, every n-th file of each class is for
    validation, the last of a class of fewer. accepts: Whether a file is an example.
  """

  root: str
  classes: tuple[str, ...]
  pattern: str
  val_root: str
  val_every: int
  accepts: Callable[[Path], bool]

  def names(self) -> list[str]:
    """Return the classes, in the order of their labels.

    Raises:
      UserError: if there is no such folder.
    """
    root = Path(self.root).expanduser()
    found = sorted(
      p.name for p in root.glob('*') if p.is_dir() and not p.name.startswith(('.', '__'))
    )
    for name in self.classes:
      if name not in found:
        raise UserError(f'data.classes: {unknown("folder", name, found)} They are in {root}.')
    if not found:
      raise UserError(f'data.root: {root} has no folders. Expected a folder for each class.')
    return list(self.classes) or found

  def files(self, split: str) -> list[tuple[Path, int]]:
    """Return the files of a split with their labels, by class and path.

    Raises:
      UserError: if a class has no file.
    """
    if self.val_root:
      return self._below(self.root if split == 'train' else self.val_root)
    below, found = self._below(self.root), []
    for label in range(len(self.names())):
      files = [f for f in below if f[1] == label]
      # A class of few files gives one; of a single file it keeps that to train on.
      every = min(self.val_every, max(len(files), 2))
      found += [f for i, f in enumerate(files) if (i % every == every - 1) == (split == 'val')]
    return found

  def _below(self, root: str) -> list[tuple[Path, int]]:
    found = []
    for label, name in enumerate(self.names()):
      folder = Path(root).expanduser() / name
      paths = sorted(p for p in folder.glob(self.pattern) if p.is_file() and self.accepts(p))
      if not paths:
        raise UserError(
          f'data.pattern: no file of {folder} matches {self.pattern!r}. Expected at least one.'
        )
      found += [(path, label) for path in paths]
    return found
