"""Byte-pair encoding over bytes, learnt from the training text."""

from collections.abc import Iterable, Iterator
import dataclasses

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tfm.data import text_chunks
from tfm.data.progress import Progress
from tfm.data.tokenizer.base import Documents, Tokenizer
from tfm.data.tokenizer.file import FileVocabulary, before_space

# The trainer takes hundreds of texts at a time.
_PIECE = 1 << 15


@dataclasses.dataclass(frozen=True)
class Bpe(Tokenizer):
  """`vocab` tokens: the 256 bytes and the merges learnt from the first `sample` characters of the
  training text.

  While it learns it keeps the distinct words of the sample, not their text.
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
        for text in text_chunks.pieces(first(document), before_space, _PIECE):
          yield text
          progress.advance(len(text))
        if not left:
          return

  def check(self) -> Iterator[str]:
    if self.vocab < 256:
      yield f'vocab: {self.vocab} is too small. At least 256, one for every byte, was wanted.'
    if self.sample < 1:
      yield f'sample: {self.sample} characters cannot teach merges. At least 1 was wanted.'
