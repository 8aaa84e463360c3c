"""WordPiece, learnt from the training text, as in BERT."""

import dataclasses
from typing import ClassVar
import unicodedata

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tfm.data.tokenizer.base import Documents
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.learnt import Learnt, plain_unknown

_UNKNOWN, _INSIDE = '[UNK]', '##'


@dataclasses.dataclass(frozen=True)
class WordPiece(Learnt):
  """Pieces of words, the longest first. Pieces inside a word start with ## (arXiv:1810.04805).

  White space is not kept. A word with an unseen character becomes `[UNK]`.
  """

  least: ClassVar[tuple[int, str]] = (2, 'the unknown token and others')

  def learn(self, documents: Documents, total: int | None = None) -> FileVocabulary:
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token=_UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    known: set[str] = set()
    for text in self.sampled(documents, total):
      known.update(text)
    # The trainer would number these pieces in another order in each run.
    pieces = [_INSIDE + c for c in sorted(known) if unicodedata.category(c)[0] in 'LMN']
    trainer = trainers.WordPieceTrainer(
      vocab_size=self.vocab, special_tokens=[_UNKNOWN, *pieces], show_progress=False
    )
    self.train(inner, trainer, documents, total)
    return FileVocabulary(plain_unknown(inner))
