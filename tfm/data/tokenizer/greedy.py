"""Greedy segmentation: the longest token at each place, from left to right."""

import dataclasses

import tokenizers
from tokenizers import models, pre_tokenizers

from tfm.data.tokenizer.base import Documents
from tfm.data.tokenizer.bpe import Bpe
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.learnt import Learnt, byte_alphabet, byte_level

#: The longest token in bytes. It bounds the time of a long word, which is cut into such parts.
_LONGEST = 64


@dataclasses.dataclass(frozen=True)
class Greedy(Learnt):
  """The tokens of byte-pair encoding, but each place takes the longest one (arXiv:2403.01289)."""

  def learn(self, documents: Documents, total: int | None = None) -> FileVocabulary:
    pairs = Bpe(self.vocab, self.sample).learn(documents, total)
    vocab = pairs.inner.get_vocab(with_added_tokens=False)
    # Every byte is a token, so the unknown token never occurs.
    model = models.WordPiece(
      vocab,
      unk_token=byte_alphabet()[0],
      continuing_subword_prefix='',
      max_input_chars_per_word=_LONGEST,
    )
    inner = byte_level(model)
    parts = pre_tokenizers.Split(tokenizers.Regex(rf'[\s\S]{{1,{_LONGEST}}}'), 'isolated')
    inner.pre_tokenizer = pre_tokenizers.Sequence([inner.pre_tokenizer, parts])
    return FileVocabulary(inner)
