"""The vocabulary of a checkpoint as a tokenizer, which no flag can name."""

import dataclasses
import hashlib
import json
from typing import Any

from tfm.data.tokenizer.base import Documents, Tokenizer, Vocabulary


@dataclasses.dataclass(frozen=True)
class FixedVocabulary(Tokenizer):
  """A tokenizer that learns nothing and returns `vocabulary` with its special tokens."""

  vocabulary: Vocabulary

  def learn(self, documents: Documents, total: int | None = None) -> Vocabulary:
    del documents, total
    return self.vocabulary

  def fixed(self) -> Vocabulary:
    return self.vocabulary

  def identity(self) -> dict[str, Any]:
    state = json.dumps([self.vocabulary.specials, self.vocabulary.state()], sort_keys=True)
    kind, base = self.vocabulary.kind, self.vocabulary.base
    return {
      'tokenizer': 'given',
      'kind': kind,
      'base': base,
      'state': hashlib.sha256(state.encode()).hexdigest(),
    }
