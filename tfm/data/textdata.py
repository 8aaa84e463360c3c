"""Sources of text: how documents become rows of tokens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import functools
import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfm.core.errors import UserError
from tfm.data import framing as framing_lib
from tfm.data.base import Data
from tfm.data.corpus import Corpus
from tfm.data.dataset import ArraySpec
from tfm.data.framing import Choice, Framing
from tfm.data.store import Store, default_cache, open_store, write_store
from tfm.data.tokenizer import Bpe, Tokenizer, Vocabulary


@dataclasses.dataclass(frozen=True)
class TextData(Data):
  """Text, how it is tokenised, and the `length` of a sequence in tokens.

  Attributes: tokenizer: Learns a vocabulary from the text, or reads a published one. length: Tokens
    of a row of the model. isolate: Each row packs whole documents that cannot attend to each other.
    Otherwise rows are windows of all the text
      end to end.
    begin: Whether documents start with the begin tokens of a published tokenizer. 'auto': if its
    prompts do.
    end: Whether documents end with the end token. 'auto': if there are several documents.
    new_tokens: What happens if a published tokenizer lacks a special token that the data or the
    task needs.
  """

  tokenizer: Tokenizer = dataclasses.field(default_factory=Bpe)
  length: int = 256
  isolate: bool = False
  begin: Choice = 'auto'
  end: Choice = 'auto'
  new_tokens: Literal['refuse', 'add'] = 'refuse'

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
    published = self._published()
    if published is None or not task.adds_special_tokens:
      return self.corpus(task.window(self.length), task.overlap, task.specials(self.length))
    frame = framing_lib.prompt_frame(published)
    window = self.length - len(frame.begin) - len(frame.end)
    if window < 1:
      raise UserError(
        f'data.length: {self.length} tokens have no room for text and the special tokens of a row '
        f'({[*frame.begin, *frame.end]}). Expected {self.length - window + 1} or more.'
      )
    return self.corpus(window, task.overlap)

  def specs(self) -> dict[str, ArraySpec]:
    # A task may add special tokens or shift labels: the length of its raw rows is
    # `task.window(length)`.
    row = ArraySpec((self.batch, self.length), np.int32, 'BT')
    return {'tokens': row, 'segments': row, 'positions': row}

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> Corpus:
    """Return the text as rows of tokens.

    The first call reads and tokenises all of the text; later calls map files into memory. Memory
    use does not grow with the size of a document.

    Args:
      window: Tokens of a row.
      overlap: Tokens that consecutive rows share.
      specials: Names of the special tokens that the vocabulary must have.
    """
    published = self._published()
    if published is None:
      store = self._learnt_store()
      vocabulary = store.vocabulary.with_specials(specials)
    else:
      known, framing = self._framed(published)
      store = self._store(lambda: known, framing, {'framing': framing})
      vocabulary = framing_lib.with_new_tokens(known, tuple(specials), self.new_tokens)
      if new := framing_lib.new_tokens(published, vocabulary):
        logging.getLogger(__name__).warning('%s', framing_lib.new_tokens_line(new))
    return Corpus(store, vocabulary, window, overlap, batch=self.batch, isolate=self.isolate)

  def framing(self, vocabulary: Vocabulary) -> Framing:
    """Return the tokens around each document for a published vocabulary."""
    return framing_lib.document_framing(vocabulary, self.begin, self.end, self.separated())

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.length < 1:
      yield f'length: is {self.length}. Expected 1 or more.'

  def _published(self) -> Vocabulary | None:
    """Return the vocabulary if a model elsewhere was trained with it."""
    given = _given(self.tokenizer, json.dumps(self.tokenizer.identity(), sort_keys=True))
    return given if given is not None and given.published else None

  def _framed(self, published: Vocabulary) -> tuple[Vocabulary, Framing]:
    """Return a published vocabulary with the end token that documents need, and their framing."""
    own = published.with_specials(('eos',))
    added = bool(framing_lib.new_tokens(published, own))
    try:
      return (published, self.framing(published)) if added else (own, self.framing(own))
    except framing_lib.NoEnd:
      if self.new_tokens == 'refuse':
        raise
      return own, self.framing(own)

  def _learnt_store(self) -> Store:
    """Return the store of a vocabulary that tfm learnt, from this text or for a checkpoint."""
    if self.begin == 'always':
      raise UserError(
        'data.begin: is always, and the tokenizer has no begin token. Expected auto or never.'
      )
    separated = self.separated() if self.end == 'auto' else self.end == 'always'

    def learn() -> Vocabulary:
      vocabulary = self.tokenizer.learn(self.streams, self.total_bytes())
      return vocabulary.with_specials(('eos',)) if separated else vocabulary

    return self._store(learn, None if separated else Framing(), {'separated': separated})

  def _store(
    self, learn: Callable[[], Vocabulary], framing: Framing | None, identity: dict[str, Any]
  ) -> Store:
    """Return the open store, written first if needed. Framing None is one end token."""

    def write(folder: Path) -> None:
      vocabulary = learn()
      around = Framing(end=(vocabulary.special('eos'),)) if framing is None else framing
      write_store(folder, vocabulary, self.streams, around, self.total_bytes())

    identity = {'source': self.identity(), 'tokenizer': self.tokenizer.identity(), **identity}
    store = open_store(
      Path(self.cache).expanduser() if self.cache else default_cache(), identity, write
    )
    if 'train' not in store.splits:
      raise UserError(f'data: {type(self).__name__.lower()} has no text to train on.')
    return store


@functools.lru_cache(maxsize=1)
def _given(tokenizer: Tokenizer, identity: str) -> Vocabulary | None:
  """Return the vocabulary of a tokenizer that learns none. A large one takes seconds to read, and
  is needed twice.
  """
  del identity  # a part of the key: a file may have changed
  return tokenizer.given()
