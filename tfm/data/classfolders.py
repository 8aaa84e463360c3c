"""Files in one folder per class, split into training and validation."""

from collections.abc import Callable
import dataclasses
from pathlib import Path

from tfm.core.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class ClassFolders:
  """The files below `root/CLASS` that match `pattern` and that `accepts` takes.

  Attributes:
    root: The folder of the classes.
    classes: The class folders, in the order of their labels. Empty takes all of them by name.
    pattern: A glob below each class.
    val_root: A folder of the same classes for validation.
    val_every: Without `val_root`, every n-th file of each class is for validation, or the last file
      of a smaller class.
    accepts: Returns whether a file is an example.
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
      UserError: A folder is missing.
    """
    root = Path(self.root).expanduser()
    folders = [path.name for path in root.glob('*') if path.is_dir()]
    names = sorted(name for name in folders if not name.startswith(('.', '__')))
    for name in self.classes:
      if name not in names:
        raise UserError(f'data.classes: {root}: {unknown("folder", name, names)}')
    if not names:
      raise UserError(f'data.root: {root} has no folders. Expected a folder for each class.')
    return list(self.classes) or names

  def files(self, split: str) -> list[tuple[Path, int]]:
    """Return the files of a split with their labels, by class and path.

    Raises:
      UserError: A class has no file.
    """
    if self.val_root:
      return self._below(self.root if split == 'train' else self.val_root)
    below, chosen = self._below(self.root), []
    for label in range(len(self.names())):
      files = [f for f in below if f[1] == label]
      # A small class gives one file to validation. A single file is for training.
      every = min(self.val_every, max(len(files), 2))
      chosen += [f for i, f in enumerate(files) if (i % every == every - 1) == (split == 'val')]
    return chosen

  def _below(self, root: str) -> list[tuple[Path, int]]:
    files = []
    for label, name in enumerate(self.names()):
      folder = Path(root).expanduser() / name
      paths = sorted(p for p in folder.glob(self.pattern) if p.is_file() and self.accepts(p))
      if not paths:
        raise UserError(
          f'data.pattern: no file of {folder} matches {self.pattern!r}. Expected at least one.'
        )
      files += [(path, label) for path in paths]
    return files
