"""Byte-level byte-pair encoding, learnt from the training text."""

import dataclasses

from tokenizers import models, trainers

from tfm.data.tokenizer.base import Documents
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.learnt import Learnt, byte_alphabet, byte_level


@dataclasses.dataclass(frozen=True)
class Bpe(Learnt):
  """Byte-pair encoding with 256 byte tokens and learnt merges (arXiv:1508.07909)."""

  def learn(self, documents: Documents, total: int | None = None) -> FileVocabulary:
    inner = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
      vocab_size=self.vocab, initial_alphabet=byte_alphabet(), show_progress=False
    )
    self.train(inner, trainer, documents, total)
    return FileVocabulary(inner)
