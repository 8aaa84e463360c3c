"""The base of text sources: how documents become token sequences."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import functools
import json
import logging
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from tfm.core.errors import UserError
from tfm.data import framing as framing_lib
from tfm.data import rejects
from tfm.data.base import Data
from tfm.data.corpus import Corpus
from tfm.data.dataset import ArraySpec
from tfm.data.framing import Choice, Framing
from tfm.data.layout import Packing
from tfm.data.store import Store, default_cache, open_store
from tfm.data.store_writer import saved_vocabulary, write_store
from tfm.data.tokenizer import Bpe, Tokenizer, Vocabulary


@dataclasses.dataclass(frozen=True)
class TextData(Data):
  """A source of text, its tokenizer, and the `length` of sequences.

  Attributes:
    tokenizer: Learns a vocabulary from the text, or reads a published one.
    length: Tokens of a model sequence.
    isolate: The earlier form of `packing`: true is 'best_fit'.
    packing: How documents fill sequences. 'stream': windows of the concatenated text.
      'stream_segments': the same windows, but documents cannot attend to each other. 'best_fit':
      whole documents, which cannot attend to each other, in the fewest sequences. 'none': one
      document, or one piece of a long document, in each sequence, and padding. 'auto' is 'best_fit'
      if `isolate`, else 'stream'.
    begin: Whether documents start with the begin tokens of a published tokenizer. 'auto' follows
      its prompts.
    end: Whether documents end with the end token. 'auto' adds it if there are several documents.
    new_tokens: Whether to add special tokens that a published tokenizer lacks ('add'), or to raise
      an error ('refuse').
  """

  tokenizer: Tokenizer = dataclasses.field(default_factory=Bpe)
  length: int = 256
  isolate: bool = False
  begin: Choice = 'auto'
  end: Choice = 'auto'
  new_tokens: Literal['refuse', 'add'] = 'refuse'
  packing: Literal['auto', Packing] = 'auto'

  @property
  def packed(self) -> Packing:
    """How documents fill sequences, without 'auto'."""
    if self.packing == 'auto':
      return 'best_fit' if self.isolate else 'stream'
    return self.packing

  @property
  def isolated(self) -> bool:
    """Whether documents of a sequence cannot attend to each other."""
    return self.packed != 'stream'

  #: Whether examples are pairs of source and target in place of documents.
  paired: ClassVar[bool] = False

  def documents(self, split: str) -> Iterator[str]:
    """Yield the documents of 'train' or 'val', always in the same order."""
    raise NotImplementedError

  def streams(self, split: str) -> Iterator[Iterable[str]]:
    """Yield each document of a split in parts, for documents larger than memory."""
    return ([text] for text in self.documents(split))

  def identity(self) -> dict[str, Any]:
    """Return JSON that changes whenever the documents change."""
    raise NotImplementedError

  def separated(self) -> bool:
    """Return whether there are several documents, which an end token must separate."""
    return True

  def total_bytes(self) -> int | None:
    """Return the approximate size of the text in bytes, or None if it is expensive to find."""
    return None

  def open(self, task: Any) -> Corpus:
    published = self._published()
    if published is None or not task.adds_special_tokens:
      corpus = self.corpus(task.window(self.length), task.overlap, task.specials(self.length))
      return corpus.without_shifts() if getattr(task, 'static', False) else corpus
    frame = framing_lib.prompt_frame(published)
    window = self.length - len(frame.begin) - len(frame.end)
    if window < 1:
      raise UserError(
        f'data.length: {self.length} tokens do not fit text and the special tokens of a sequence '
        f'({[*frame.begin, *frame.end]}). Expected {self.length - window + 1} or more.'
      )
    return self.corpus(window, task.overlap)

  def specs(self) -> dict[str, ArraySpec]:
    # A task may add special tokens or shift labels. Its raw sequences have `task.window(length)`
    # tokens.
    tokens = ArraySpec((self.batch, self.length), np.int32, 'BT')
    return {'tokens': tokens, 'segments': tokens, 'positions': tokens}

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> Corpus:
    """Return the text as token sequences.

    The first call tokenises all text, and later calls map files into memory. Memory use does not
    grow with the size of a document.

    Args:
      window: Tokens of a sequence.
      overlap: Tokens that consecutive sequences share.
      specials: Names of the special tokens that the vocabulary must have.

    Returns:
      The dataset.

    Raises:
      UserError: The text cannot be read, or the tokenizer lacks a special token.
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
    return Corpus(store, vocabulary, window, overlap, batch=self.batch, packing=self.packed)

  def framing(self, vocabulary: Vocabulary) -> Framing:
    """Return the tokens around each document for a published vocabulary."""
    return framing_lib.document_framing(vocabulary, self.begin, self.end, self.separated())

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.length < 1:
      yield f'length: is {self.length}. Expected 1 or more.'
    if self.isolate and self.packing != 'auto':
      yield (
        f'isolate: is true, and packing is {self.packing}. Expected only packing, as in '
        'packing=best_fit.'
      )

  def _published(self) -> Vocabulary | None:
    """Return the vocabulary of a published tokenizer, else None."""
    vocabulary = _fixed(self.tokenizer, json.dumps(self.tokenizer.identity(), sort_keys=True))
    return vocabulary if vocabulary is not None and vocabulary.published else None

  def _framed(self, published: Vocabulary) -> tuple[Vocabulary, Framing]:
    """Return a published vocabulary with the end token that documents need, and their framing."""
    extended = published.with_specials(('eos',))
    adds_token = bool(framing_lib.new_tokens(published, extended))
    vocabulary = published if adds_token else extended
    try:
      return vocabulary, self.framing(vocabulary)
    except framing_lib.NoEnd:
      if self.new_tokens == 'refuse':
        raise
      return extended, self.framing(extended)

  def _learnt_store(self) -> Store:
    """Return the store of a vocabulary that tfm learnt, from this text or for a checkpoint."""
    if self.begin == 'always':
      raise UserError(
        'data.begin: is always, but the tokenizer has no begin token. Expected auto or never.'
      )
    separated = self.separated() if self.end == 'auto' else self.end == 'always'

    def learn() -> Vocabulary:
      vocabulary = self.tokenizer.learn(self.streams, self.total_bytes())
      return vocabulary.with_specials(('eos',)) if separated else vocabulary

    return self._store(learn, None if separated else Framing(), {'separated': separated})

  def _store(
    self, learn: Callable[[], Vocabulary], framing: Framing | None, identity: dict[str, Any]
  ) -> Store:
    """Return the open store, which is written first if needed.

    Args:
      learn: Returns the vocabulary.
      framing: The tokens around each document. None is an end token.
      identity: JSON that identifies the store, with the source and the tokenizer.
    """

    def write(folder: Path) -> None:
      vocabulary = saved_vocabulary(folder) or learn()
      around = Framing(end=(vocabulary.special('eos'),)) if framing is None else framing
      write_store(folder, vocabulary, self.streams, around, self.total_bytes())

    identity = {'source': self.identity(), 'tokenizer': self.tokenizer.identity(), **identity}
    cache = Path(self.cache).expanduser() if self.cache else default_cache()
    store = open_store(cache, identity, write)
    if 'train' not in store.splits:
      found = '; '.join(rejects.lines(store.meta.get('rejected', {}).get('train', {})))
      reason = f' ({found})' if found else ''
      raise UserError(
        f'data: {type(self).__name__.lower()} has no text to train on{reason}. Expected some text.'
      )
    return store


@functools.lru_cache(maxsize=1)
def _fixed(tokenizer: Tokenizer, identity: str) -> Vocabulary | None:
  """Return the vocabulary of a tokenizer that does not learn.

  It is cached, because a large vocabulary takes seconds to read and is needed twice.
  """
  del identity  # part of the cache key, because a file may have changed
  return tokenizer.fixed()
