"""Files sorted into folders: the folder is the label."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data.classfolders import ClassFolders
from tfm.data.corpus import Corpus
from tfm.data.dataset import ArraySpec
from tfm.data.framing import Framing
from tfm.data.layout import Layout, Pieces
from tfm.data.text import read, stamp
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Vocabulary


@dataclasses.dataclass(frozen=True)
class Folders(TextData):
  """UTF-8 files that match `pattern` below `root/CLASS`, each a document of that class; a row is a
  piece of one.

  `classes` are the folders that count, in the order of their labels; empty is all of them by name.
  Held out are those below `val_root/CLASS`, or else every `val_every`-th file of each class in the
  order of paths, the last of a class of fewer."""

  root: str = ''
  classes: tuple[str, ...] = ()
  pattern: str = '**/*'
  val_root: str = ''
  val_every: int = 10

  def documents(self, split: str) -> Iterator[str]:
    return map(''.join, self.streams(split))

  def streams(self, split: str) -> Iterator[Iterator[str]]:
    return (read(path) for path, _ in self._files(split))

  def framing(self, vocabulary: Vocabulary) -> Framing:
    """Return no tokens: rows are pieces of documents, which the task frames."""
    del vocabulary
    return Framing()

  def labels(self, split: str) -> NDArray[np.int32]:
    """The class of each document, int32."""
    return np.array([label for _, label in self._files(split)], np.int32)

  def names(self) -> list[str]:
    """Return the classes, in the order of their labels.

    Raises:
      UserError: if there is no such folder.
    """
    return self._folders().names()

  def identity(self) -> dict[str, Any]:
    files = {
      split: [[*stamp(path), label] for path, label in self._files(split)]
      for split in ('train', 'val')
    }
    return {'data': 'folders', 'names': self.names(), **files}

  def total_bytes(self) -> int:
    return sum(path.stat().st_size for split in ('train', 'val') for path, _ in self._files(split))

  def specs(self) -> dict[str, ArraySpec]:
    return super().specs() | {'labels': ArraySpec((self.batch,), np.int32, 'B')}

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> 'LabelledCorpus':
    plain = super().corpus(window, overlap, specials)
    labels = {split: self.labels(split) for split in plain.splits}
    return LabelledCorpus(plain, labels, self.names())

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.root:
      yield 'root: is empty. A folder with a folder for each class was wanted.'
    for name in ('begin', 'end'):
      if (value := getattr(self, name)) != 'auto':
        yield f'{name}: is {value}, and rows are pieces of documents, which the task frames. Expected auto.'
    if self.val_every < 2:
      yield f'val_every: is {self.val_every}. At least 2 was wanted, or nothing is left to train on.'

  def _folders(self) -> ClassFolders:
    # An empty file says nothing of its class.
    with_text = lambda path: path.stat().st_size > 0
    return ClassFolders(
      self.root, self.classes, self.pattern, self.val_root, self.val_every, with_text
    )

  def _files(self, split: str) -> list[tuple[Path, int]]:
    return self._folders().files(split)


class LabelledCorpus(Corpus):
  """A corpus whose rows are pieces of one document each, and raw batches have its `labels`, int32
  [b], of `names`.
  """

  def __init__(self, plain: Corpus, labels: dict[str, NDArray[np.int32]], names: list[str]):
    super().__init__(plain.store, plain.vocabulary, plain.window, 0, batch=plain.batch_size)
    self.labels, self._names = labels, names

  @property
  def names(self) -> list[str]:
    return self._names

  @property
  def byte_lengths(self):
    """None: labels are no text."""
    return None

  def _raw(self, layout: Any, index, phase, sample, key):
    split = next(name for name in self.splits if self._layout(name) is layout)
    return super()._raw(layout, index, phase, sample, key) | {
      'labels': self.labels[split][layout.document[index]]
    }

  @functools.cache
  def _layout(self, split: str) -> Layout:
    if split not in self.store.splits:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    # Between documents stands an end-of-text token, which the task writes itself if it wants one.
    return Pieces(self.store.splits[split], self.window)
