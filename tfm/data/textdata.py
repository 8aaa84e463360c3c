"""Sources of text: how documents become rows of tokens."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tfm.core.errors import UserError
from tfm.data.base import Data
from tfm.data.corpus import Corpus
from tfm.data.dataset import ArraySpec
from tfm.data.store import default_cache, open_store, write_store
from tfm.data.tokenizer import Bpe, Tokenizer


@dataclasses.dataclass(frozen=True)
class TextData(Data):
  """Text, how it is tokenised, and the `length` of a sequence in tokens.

  With `isolate`, each row packs whole documents that cannot attend to each other; without it, rows are windows of all
  the text end to end.
  """

  tokenizer: Tokenizer = dataclasses.field(default_factory=Bpe)
  length: int = 256
  isolate: bool = False

  def documents(self, split: str) -> Iterator[str]:
    """Yield the documents of 'train' or 'val', always in the same order."""
    raise NotImplementedError

  def streams(self, split: str) -> Iterator[Iterable[str]]:
    """Yield each document of a split in parts, so that it need not fit in memory."""
    return ([text] for text in self.documents(split))

  def identity(self) -> dict[str, Any]:
    """Return JSON that changes whenever the documents change."""
    raise NotImplementedError

  def separated(self) -> bool:
    """Return whether an end-of-text token must separate documents: whether there are several."""
    return True

  def total_bytes(self) -> int | None:
    """Return the approximate size of the text in bytes, or None if finding it is expensive."""
    return None

  def open(self, task: Any) -> Corpus:
    return self.corpus(task.window(self.length), task.overlap, task.specials(self.length))

  def specs(self) -> dict[str, ArraySpec]:
    # A task may add special tokens or shift labels: the length of its raw rows is `task.window(length)`.
    row = ArraySpec((self.batch, self.length), np.int32, 'BT')
    return {'tokens': row, 'segments': row, 'positions': row}

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> Corpus:
    """Return the text as rows of tokens.

    The first call reads and tokenises all of the text; later calls map files into memory. Memory use does not grow
    with the size of a document.

    Args:
      window: Tokens of a row.
      overlap: Tokens that consecutive rows share.
      specials: Names of the special tokens that the vocabulary must have.
    """

    def write(folder: Path) -> None:
      vocabulary = self.tokenizer.learn(self.streams, self.total_bytes())
      write_store(folder, vocabulary, self.streams, self.separated(), self.total_bytes())

    identity = {'source': self.identity(), 'tokenizer': self.tokenizer.identity(), 'separated': self.separated()}
    store = open_store(Path(self.cache).expanduser() if self.cache else default_cache(), identity, write)
    if 'train' not in store.splits:
      raise UserError(f'data: {type(self).__name__.lower()} has no text to train on.')
    vocabulary = store.vocabulary.with_specials(specials)
    return Corpus(store, vocabulary, window, overlap, batch=self.batch, isolate=self.isolate)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.length < 1:
      yield f'length: is {self.length}. Expected 1 or more.'
