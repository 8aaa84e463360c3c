"""Byte-level byte-pair encoding, learnt from the training text."""

from collections.abc import Iterable, Iterator
import dataclasses

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tfm.data import text_chunks
from tfm.data.progress import Progress
from tfm.data.tokenizer.base import Documents, Tokenizer
from tfm.data.tokenizer.file import FileVocabulary, before_space

# Characters of a text for the trainer, which takes hundreds of texts at a time.
_CHUNK = 1 << 15


@dataclasses.dataclass(frozen=True)
class Bpe(Tokenizer):
  """Byte-pair encoding with 256 byte tokens and learnt merges.

  Learning keeps the distinct words of the sample in memory, not its text.

  Attributes:
    vocab: The number of tokens.
    sample: The number of characters of the training text to learn from.
  """

  vocab: int = 2048
  sample: int = 200_000_000

  def learn(self, documents: Documents, total: int | None = None) -> FileVocabulary:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
      vocab_size=self.vocab,
      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
      show_progress=False,
    )
    inner.train_from_iterator(self._sampled(documents, total or self.sample), trainer)
    return FileVocabulary(inner)

  def _sampled(self, documents: Documents, total: int) -> Iterator[str]:
    left = self.sample

    def first(document: Iterable[str]) -> Iterator[str]:
      nonlocal left
      for part in document:
        yield part[:left]
        left = max(0, left - len(part))
        if not left:
          return

    with Progress('reading for the vocabulary', min(total, self.sample)) as progress:
      for document in documents('train'):
        for text in text_chunks.chunks(first(document), before_space, _CHUNK):
          yield text
          progress.advance(len(text))
        if not left:
          return

  def check(self) -> Iterator[str]:
    if self.vocab < 256:
      yield f'vocab: is {self.vocab}. Expected 256 or more, a token for every byte.'
    if self.sample < 1:
      yield f'sample: is {self.sample}. Expected 1 character or more.'
