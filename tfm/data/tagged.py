"""Sentences with a tag for each word, in the columns of CoNLL files."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec
from tfm.data.framing import Framing
from tfm.data.layout import Layout, Pieces
from tfm.data.paths import expand, file_stamp
from tfm.data.store import Split
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Vocabulary

#: CoNLL-2003's mark of a new document.
_DOCUMENT = '-DOCSTART-'


class Word(NamedTuple):
  """A word and its tag."""

  text: str
  tag: str


@dataclasses.dataclass(frozen=True)
class Tagged(TextData):
  """Files with a word and its tag in each line, and an empty line after each sentence.

  Each sentence is an example; longer ones are split. Every word is tokenised separately, with a
  space before it if it is not the first. Its label is at its first token. Words without tokens have
  no label.

  Attributes:
    files: A path, a glob, a folder (all files below it), or several of them with commas.
    columns: The columns of word and tag, from 1. Negative numbers count from the last column.
    val_files: The validation files.
    val_every: Without `val_files`, every n-th sentence is for validation. 0 holds out none.
  """

  files: str = ''
  columns: tuple[int, int] = (1, -1)
  val_files: str = ''
  val_every: int = 10

  def sentences(self, split: str) -> Iterator[list[Word]]:
    """Yield the sentences of a split.

    Raises:
      UserError: A file cannot be read, or a line lacks a column.
    """
    name = 'val_files' if self.val_files and split == 'val' else 'files'
    number = 0
    for path in self._paths(name):
      for sentence in _sentences(path, self.columns):
        number += 1
        held_out = self.val_every and number % self.val_every == 0
        if self.val_files or bool(held_out) == (split == 'val'):
          yield sentence

  def documents(self, split: str) -> Iterator[str]:
    """Yield words, each with the space before it."""
    published = self._published()
    # Other published tokenizers put a space before every text.
    space = ' ' if published is None or published.byte_lengths is not None else ''
    for sentence in self.sentences(split):
      for i, word in enumerate(sentence):
        yield (space if i else '') + word.text

  def names(self) -> list[str]:
    """Return the tags in the order of their labels.

    Tags O, B-X and I-X have the order O, B-X, I-X, B-Y, I-Y, ..., other tags that of their names.
    """
    return list(_names(self, str(self.identity())))

  def separated(self) -> bool:
    """Return False: the words of a sentence have no tokens between them."""
    return False

  def framing(self, vocabulary: Vocabulary) -> Framing:
    """Return no tokens: the task adds special tokens to sentences."""
    del vocabulary
    return Framing()

  def check_sources(self) -> None:
    self.identity()

  def identity(self) -> dict[str, Any]:
    identity: dict[str, Any] = {'data': 'tagged', 'columns': self.columns}
    if not self.val_files:
      identity['val_every'] = self.val_every
    for name in ('files', 'val_files'):
      identity[name] = [file_stamp(path) for path in self._paths(name)]
    return identity

  def total_bytes(self) -> int:
    paths = self._paths('files') + self._paths('val_files')
    return sum(path.stat().st_size for path in paths)

  def specs(self) -> dict[str, ArraySpec]:
    specs = super().specs()
    return specs | {'labels': specs['tokens']}

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> 'TaggedCorpus':
    plain = super().corpus(window, overlap, specials)
    names = self.names()
    numbers = {name: i for i, name in enumerate(names)}
    sizes, tags = {}, {}
    for split in plain.splits:
      sentences = list(self.sentences(split))
      sizes[split] = np.array([len(sentence) for sentence in sentences], np.int64)
      of_words = [numbers[word.tag] for sentence in sentences for word in sentence]
      tags[split] = np.array(of_words, np.int32)
    return TaggedCorpus(plain, sizes, tags, names)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. Expected a path, a glob, a folder, or several of them with commas.'
    for name in ('begin', 'end'):
      if (value := getattr(self, name)) != 'auto':
        yield f'{name}: is {value}, but the task adds special tokens to sentences. Expected auto.'
    if self.packed in ('stream_segments', 'best_fit'):
      yield f'packing: is {self.packed}, but each sequence has one sentence. Expected none or auto.'
    if len(self.columns) != 2 or 0 in self.columns:
      yield f'columns: is {self.columns}. Expected two columns from 1, or negative from the last.'
    if self.val_every == 1 or self.val_every < 0:
      yield f'val_every: is {self.val_every}. Expected 2 or more, or 0 for no validation.'

  def _paths(self, name: str) -> list[Path]:
    return expand(getattr(self, name), f'data.{name}')


class TaggedCorpus(Corpus):
  """A corpus of sentences with `labels` int32 [b, window], -1 where a token has no label.

  Args:
    plain: The corpus of words as documents.
    sizes: The number of words of each sentence, by split.
    tags: The tag of each word, by split.
    names: The tags.
  """

  def __init__(
    self,
    plain: Corpus,
    sizes: dict[str, NDArray[np.int64]],
    tags: dict[str, NDArray[np.int32]],
    names: list[str],
  ):
    super().__init__(plain.store, plain.vocabulary, plain.window, 0, batch=plain.batch_size)
    self.sizes, self.tags, self._names = sizes, tags, names

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
    split = next(name for name in self.splits if self._layout(name) is layout)
    labels = self._labels(split).sequences(index, phase).tokens - 1
    return super()._raw(layout, index, phase, sample, key) | {'labels': labels}

  @functools.cache
  def _layout(self, split: str) -> Layout:
    if split not in self.store.splits:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    return Pieces(self._sentences(split, self.store.splits[split].tokens), self.window)

  @functools.cache
  def _labels(self, split: str) -> Layout:
    """Return the labels of the tokens plus 1, in the same sequences as the tokens."""
    starts = self.store.splits[split].starts
    labels = np.zeros(starts[-1], np.int32)
    has_tokens = np.diff(starts) > 0
    labels[starts[:-1][has_tokens]] = self.tags[split][has_tokens] + 1
    return Pieces(self._sentences(split, labels), self.window)

  def _sentences(self, split: str, tokens: NDArray[Any]) -> Split:
    """Return tokens with sentences as documents."""
    first = np.concatenate([[0], np.cumsum(self.sizes[split])])
    whole = self.store.splits[split]
    return Split(tokens, whole.starts[first], whole.text_bytes)


def _sentences(path: Path, columns: tuple[int, int]) -> Iterator[list[Word]]:
  """Yield the sentences of a file, without marks of documents."""
  try:
    lines = path.read_text('utf-8').splitlines()
  except OSError as error:
    raise UserError(
      f'data.files: cannot read {path} ({error.strerror}). Expected a readable text file.'
    ) from error
  except UnicodeDecodeError as error:
    raise UserError(f'data.files: {path} is not UTF-8 ({error.reason}). Expected UTF-8.') from error
  sentence: list[Word] = []
  for number, line in enumerate([*lines, ''], 1):
    cells = line.split()
    if not cells or cells[0] == _DOCUMENT:
      if sentence:
        yield sentence
      sentence = []
      continue
    try:
      word, tag = (cells[column - (column > 0)] for column in columns)
    except IndexError as error:
      raise UserError(
        f'data.columns: line {number} of {path} has {len(cells)} columns. Expected columns '
        f'{columns[0]} (word) and {columns[1]} (tag).'
      ) from error
    sentence.append(Word(word, tag))


@functools.lru_cache(maxsize=8)
def _names(data: Tagged, identity: str) -> tuple[str, ...]:
  """Return the tags of both splits. A changed file has another `identity`."""
  del identity
  sentences = itertools.chain(data.sentences('train'), data.sentences('val'))
  tags = {word.tag for sentence in sentences for word in sentence}
  spans = span_tags(tags)
  return tuple(spans) if tags <= set(spans) else tuple(sorted(tags))


def span_tags(tags: Iterable[str]) -> list[str]:
  """Return the tags O, B-X, I-X, B-Y, I-Y, ... of the kinds X, Y, ... of spans, sorted by name."""
  kinds = sorted({tag[2:] for tag in tags if tag[:2] in ('B-', 'I-')})
  found = ['O']
  for kind in kinds:
    found += [f'B-{kind}', f'I-{kind}']
  return found
