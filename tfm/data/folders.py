"""Text files in one folder per class."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import readers
from tfm.data.classfolders import ClassFolders
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec
from tfm.data.framing import Framing
from tfm.data.layout import Layout, Pieces
from tfm.data.paths import file_stamp
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Vocabulary


@dataclasses.dataclass(frozen=True)
class Folders(TextData):
  """UTF-8 files below `root/CLASS`, each a document of that class; `.gz` and `.zst` are unpacked.

  An example is a piece of a document with up to `length` tokens.

  Attributes:
    root: The folder of the classes.
    classes: The class folders, in the order of their labels. Empty takes all of them by name.
    pattern: A glob below each class.
    val_root: A folder of the same classes for validation.
    val_every: Without `val_root`, every n-th file of each class is for validation, or the last
      file of a smaller class.
  """

  root: str = ''
  classes: tuple[str, ...] = ()
  pattern: str = '**/*'
  val_root: str = ''
  val_every: int = 10

  def documents(self, split: str) -> Iterator[str]:
    return map(''.join, self.streams(split))

  def streams(self, split: str) -> Iterator[Iterator[str]]:
    return (readers.text(path) for path, _ in self._files(split))

  def framing(self, vocabulary: Vocabulary) -> Framing:
    """Return no tokens: the task adds special tokens to the pieces of documents."""
    del vocabulary
    return Framing()

  def labels(self, split: str) -> NDArray[np.int32]:
    """Return the class of each document, int32 [documents]."""
    return np.array([label for _, label in self._files(split)], np.int32)

  def names(self) -> list[str]:
    """Return the classes, in the order of their labels.

    Raises:
      UserError: A folder is missing.
    """
    return self._folders().names()

  def check_sources(self) -> None:
    self.identity()

  def identity(self) -> dict[str, Any]:
    identity: dict[str, Any] = {'data': 'folders', 'names': self.names()}
    for split in ('train', 'val'):
      identity[split] = [[*file_stamp(path), label] for path, label in self._files(split)]
    return identity

  def total_bytes(self) -> int:
    files = self._files('train') + self._files('val')
    return sum(path.stat().st_size for path, _ in files)

  def specs(self) -> dict[str, ArraySpec]:
    return super().specs() | {'labels': ArraySpec((self.batch,), np.int32, 'B')}

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> 'LabelledCorpus':
    plain = super().corpus(window, overlap, specials)
    labels = {split: self.labels(split) for split in plain.splits}
    return LabelledCorpus(plain, labels, self.names())

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.root:
      yield 'root: is empty. Expected a folder with a folder for each class.'
    for name in ('begin', 'end'):
      if (value := getattr(self, name)) != 'auto':
        yield (
          f'{name}: is {value}, but the task adds special tokens to pieces of documents. Expected '
          'auto.'
        )
    if self.val_every < 2:
      yield f'val_every: is {self.val_every}, which leaves no file to train on. Expected 2 or more.'

  def _folders(self) -> ClassFolders:
    with_text = lambda path: path.stat().st_size > 0
    return ClassFolders(
      self.root, self.classes, self.pattern, self.val_root, self.val_every, with_text
    )

  def _files(self, split: str) -> list[tuple[Path, int]]:
    return self._folders().files(split)


class LabelledCorpus(Corpus):
  """A corpus of document pieces with `labels` [b].

  Args:
    plain: The corpus without labels.
    labels: The label of each document, by split.
    names: The class names.
  """

  def __init__(self, plain: Corpus, labels: dict[str, NDArray[Any]], names: list[str]):
    super().__init__(plain.store, plain.vocabulary, plain.window, 0, batch=plain.batch_size)
    self.labels, self._names = labels, names

  @property
  def names(self) -> list[str]:
    return self._names

  @property
  def byte_lengths(self) -> None:
    """None, because labels are not text."""
    return None

  def _raw(
    self,
    layout: Layout,
    index: NDArray[np.int64],
    phase: NDArray[np.int64],
    sample: NDArray[np.int64],
    key: NDArray[np.uint64],
  ) -> RawBatch:
    assert isinstance(layout, Pieces)
    split = next(name for name in self.splits if self._layout(name) is layout)
    labels = self.labels[split][layout.document[index]]
    return super()._raw(layout, index, phase, sample, key) | {'labels': labels}

  @functools.cache
  def _layout(self, split: str) -> Layout:
    if split not in self.store.splits:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    # The store separates documents by end tokens. They are left out, because the task adds its own.
    return Pieces(self.store.splits[split], self.window)
