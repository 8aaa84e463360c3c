"""The base of tokenizers that the `tokenizers` library learns from the training text."""

from collections.abc import Iterable, Iterator
import dataclasses
import json
from typing import Any, ClassVar

import tokenizers
from tokenizers import decoders, pre_tokenizers

from tfm.data import text_chunks
from tfm.data.progress import Progress
from tfm.data.tokenizer.base import Documents, Tokenizer
from tfm.data.tokenizer.file import before_space

# Characters of a text for the trainer, which takes hundreds of texts at a time.
_CHUNK = 1 << 15


@dataclasses.dataclass(frozen=True)
class Learnt(Tokenizer):
  """A vocabulary that is learnt from a sample of the training text.

  Learning keeps the distinct words of the sample in memory, not its text.

  Attributes:
    vocab: The number of tokens. There are fewer if the text does not have as many.
    sample: The number of characters of the training text to learn from.
  """

  vocab: int = 2048
  sample: int = 200_000_000

  #: The smallest `vocab`, and the reason.
  least: ClassVar[tuple[int, str]] = (256, 'a token for every byte')

  def train(
    self, inner: tokenizers.Tokenizer, trainer: Any, documents: Documents, total: int | None
  ) -> None:
    """Train a tokenizer on the sample.

    Args:
      inner: The tokenizer.
      trainer: Its trainer.
      documents: Returns the documents of a split.
      total: Bytes of text, for the remaining time. None if unknown.
    """
    inner.train_from_iterator(self.sampled(documents, total), trainer)

  def sampled(self, documents: Documents, total: int | None) -> Iterator[str]:
    """Yield the sample in parts that end between words, with a progress bar."""
    left = self.sample

    def first(document: Iterable[str]) -> Iterator[str]:
      nonlocal left
      for part in document:
        yield part[:left]
        left = max(0, left - len(part))
        if not left:
          return

    size = min(total or self.sample, self.sample)
    with Progress('reading for the vocabulary', size) as progress:
      for document in documents('train'):
        for text in text_chunks.chunks(first(document), before_space, _CHUNK):
          yield text
          progress.advance(len(text))
        if not left:
          return

  def check(self) -> Iterator[str]:
    least, why = self.least
    if self.vocab < least:
      yield f'vocab: is {self.vocab}. Expected {least} or more, {why}.'
    if self.sample < 1:
      yield f'sample: is {self.sample}. Expected 1 character or more.'


def byte_level(model: Any) -> tokenizers.Tokenizer:
  """Return a lossless tokenizer over the bytes of words.

  A word includes the space before it, as in GPT-2.
  """
  inner = tokenizers.Tokenizer(model)
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.decoder = decoders.ByteLevel()
  return inner


def byte_alphabet() -> list[str]:
  """Return the 256 characters of GPT-2 for the bytes, sorted."""
  return sorted(pre_tokenizers.ByteLevel.alphabet())


def plain_unknown(inner: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
  """Return a trained tokenizer whose unknown token is decoded, because it is not special."""
  layout = json.loads(inner.to_str())
  return tokenizers.Tokenizer.from_str(json.dumps({**layout, 'added_tokens': []}))
