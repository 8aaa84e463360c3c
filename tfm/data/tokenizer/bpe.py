"""Byte-pair encoding over bytes, learnt from the training text."""

from collections.abc import Iterator
import dataclasses

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tfm.data.tokenizer.base import Documents, Tokenizer
from tfm.data.tokenizer.file import FileVocabulary


@dataclasses.dataclass(frozen=True)
class Bpe(Tokenizer):
  """`vocab` tokens: the 256 bytes and the merges learnt from the first `sample` characters of the training text."""

  vocab: int = 2048
  sample: int = 200_000_000

  def learn(self, documents: Documents) -> FileVocabulary:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
      vocab_size=self.vocab,
      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
      show_progress=False,
    )
    inner.train_from_iterator(self._sampled(documents), trainer)
    return FileVocabulary(inner)

  def _sampled(self, documents: Documents) -> Iterator[str]:
    left = self.sample
    for text in documents('train'):
      yield text[:left]
      left -= len(text)
      if left <= 0:
        return

  def check(self) -> Iterator[str]:
    if self.vocab < 256:
      yield f'vocab: {self.vocab} is too small. At least 256, one for every byte, was wanted.'
    if self.sample < 1:
      yield f'sample: {self.sample} characters cannot teach merges. At least 1 was wanted.'
