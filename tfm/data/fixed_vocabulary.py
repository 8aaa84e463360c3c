"""The vocabulary of a checkpoint as the tokenizer of another text. No row of the table: no flag can
say it.
"""

import dataclasses
import hashlib
import json
from typing import Any

from tfm.data.tokenizer.base import Documents, Tokenizer, Vocabulary


@dataclasses.dataclass(frozen=True)
class FixedVocabulary(Tokenizer):
  """Learns nothing from the text: it is read with `vocabulary`, special tokens and all."""

  vocabulary: Vocabulary

  def learn(self, documents: Documents, total: int | None = None) -> Vocabulary:
    del documents, total
    return self.vocabulary

  def given(self) -> Vocabulary:
    return self.vocabulary

  def identity(self) -> dict[str, Any]:
    said = json.dumps([self.vocabulary.specials, self.vocabulary.state()], sort_keys=True)
    kind, base = self.vocabulary.kind, self.vocabulary.base
    return {
      'tokenizer': 'given',
      'kind': kind,
      'base': base,
      'state': hashlib.sha256(said.encode()).hexdigest(),
    }
