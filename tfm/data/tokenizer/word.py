"""Whole words of the training text, and a token for all others."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from tfm.data.tokenizer.base import Documents
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.learnt import Learnt, plain_unknown

_UNKNOWN = '<unk>'


@dataclasses.dataclass(frozen=True)
class Word(Learnt):
  r"""The most frequent words. Other words become `<unk>`.

  Text between words is not kept; decoded words have single spaces between them.

  Attributes:
    pattern: A regular expression of a word. The default is a run of letters and digits, or of
      punctuation. `\S+` splits at white space only.
    min_count: The least number of times that the sample has a word of the vocabulary.
  """

  pattern: str = r'\w+|[^\w\s]+'
  min_count: int = 1

  least: ClassVar[tuple[int, str]] = (2, 'the unknown token and others')

  def learn(self, documents: Documents, total: int | None = None) -> FileVocabulary:
    inner = tokenizers.Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
    inner.pre_tokenizer = self._splitter()
    trainer = trainers.WordLevelTrainer(
      vocab_size=self.vocab,
      min_frequency=self.min_count,
      special_tokens=[_UNKNOWN],
      show_progress=False,
    )
    self.train(inner, trainer, documents, total)
    return FileVocabulary(plain_unknown(inner))

  def _splitter(self) -> pre_tokenizers.PreTokenizer:
    pattern = tokenizers.Regex(self.pattern)
    return pre_tokenizers.Split(pattern, 'removed', invert=True)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.min_count < 1:
      yield f'min_count: is {self.min_count}. Expected 1 or more.'
    try:
      self._splitter()
    except Exception as error:
      yield f'pattern: {self.pattern!r} is no regular expression ({error}). Expected one like \\S+.'
