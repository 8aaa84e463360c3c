"""Tables of texts with a class or a number each."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import table_files
from tfm.data.dataset import ArraySpec
from tfm.data.folders import LabelledCorpus
from tfm.data.framing import Framing
from tfm.data.layout import Layout, Pieces
from tfm.data.paths import expand, file_stamp
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Vocabulary


@dataclasses.dataclass(frozen=True)
class LabelledText(TextData):
  """Rows of tables, each a text with a label: `.csv`, `.tsv` with a header, or `.jsonl`.

  Longer texts are cut to `length` tokens. Rows with an empty text or label are left out.

  Attributes:
    files: A path, a glob, a folder (all files below it), or several of them with commas.
    text: The column of the text.
    label: The column of the label.
    numbers: Whether labels are numbers, for `task=regress`. Otherwise they are names of classes,
      for `task=classify`, numbered in the order of their names.
    val_files: The validation files.
    val_every: Without `val_files`, every n-th row is for validation. 0 holds out none.
  """

  files: str = ''
  text: str = 'text'
  label: str = 'label'
  numbers: bool = False
  val_files: str = ''
  val_every: int = 10

  def documents(self, split: str) -> Iterator[str]:
    return (text for text, _ in self.rows(split))

  def rows(self, split: str) -> Iterator[tuple[str, str]]:
    """Yield the text and the label of each row of a split.

    Raises:
      UserError: A file cannot be read, or lacks a column.
    """
    name = 'val_files' if self.val_files and split == 'val' else 'files'
    number = empty = 0
    for path in self._paths(name):
      for text, label in table_files.rows(path, (self.text, self.label)):
        if not text or not label:
          empty += 1
          continue
        number += 1
        held_out = self.val_every and number % self.val_every == 0
        if self.val_files or bool(held_out) == (split == 'val'):
          yield text, label
    if empty:
      _warn(f'data: {empty} rows of {split} have no text or no label, and are left out.')

  def labels(self, split: str) -> NDArray[Any]:
    """Return the label of each row, int32 or float32 [rows]."""
    found = [label for _, label in self.rows(split)]
    if not self.numbers:
      numbers = {name: i for i, name in enumerate(self.names())}
      return np.array([numbers[name] for name in found], np.int32)
    try:
      return np.array([float(label) for label in found], np.float32)
    except ValueError as error:
      raise UserError(
        f'data.label: {error}. Expected numbers, or data.numbers=False for classes.'
      ) from error

  def names(self) -> list[str]:
    """Return the classes in the order of their labels, or nothing for numbers."""
    if self.numbers:
      return []
    return list(_names(self, str(self.identity())))

  def framing(self, vocabulary: Vocabulary) -> Framing:
    """Return no tokens: the task adds special tokens to texts."""
    del vocabulary
    return Framing()

  def check_sources(self) -> None:
    self.identity()

  def identity(self) -> dict[str, Any]:
    names = ('text', 'label', 'numbers') if self.val_files else ('text', 'label', 'val_every')
    identity: dict[str, Any] = {name: getattr(self, name) for name in names}
    for name in ('files', 'val_files'):
      identity[name] = [file_stamp(path) for path in self._paths(name)]
    return {'data': 'labelled_text', **identity}

  def total_bytes(self) -> int:
    paths = self._paths('files') + self._paths('val_files')
    return sum(path.stat().st_size for path in paths)

  def specs(self) -> dict[str, ArraySpec]:
    dtype = np.float32 if self.numbers else np.int32
    return super().specs() | {'labels': ArraySpec((self.batch,), dtype, 'B')}

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> LabelledCorpus:
    plain = super().corpus(window, overlap, specials)
    labels = {split: self.labels(split) for split in plain.splits}
    return RowCorpus(plain, labels, self.names())

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. Expected a path, a glob, a folder, or several of them with commas.'
    for name in ('begin', 'end'):
      if (value := getattr(self, name)) != 'auto':
        yield f'{name}: is {value}, but the task adds special tokens to texts. Expected auto.'
    if self.val_every == 1 or self.val_every < 0:
      yield f'val_every: is {self.val_every}. Expected 2 or more, or 0 for no validation.'

  def _paths(self, name: str) -> list[Path]:
    return expand(getattr(self, name), f'data.{name}')


class RowCorpus(LabelledCorpus):
  """A corpus with one example for each document."""

  @functools.cache
  def _layout(self, split: str) -> Layout:
    if split not in self.store.splits:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    return Beginnings(self.store.splits[split], self.window)


@dataclasses.dataclass(frozen=True)
class Beginnings(Pieces):
  """The first window of each document."""

  def __post_init__(self) -> None:
    super().__post_init__()
    first = np.flatnonzero(np.diff(self.document, prepend=-1))
    for name in ('start', 'length', 'document'):
      object.__setattr__(self, name, getattr(self, name)[first])


@functools.lru_cache(maxsize=8)
def _names(data: LabelledText, identity: str) -> tuple[str, ...]:
  """Return the sorted classes of both splits. A changed file has another `identity`."""
  del identity
  return tuple(sorted({label for split in ('train', 'val') for _, label in data.rows(split)}))


@functools.lru_cache(maxsize=64)
def _warn(message: str) -> None:
  """Log a warning once, although data are read several times."""
  logging.getLogger(__name__).warning('%s', message)
