"""Unigram language model over the bytes of words, learnt from the training text."""

import collections
from collections.abc import Iterable, Iterator
import dataclasses
import io
import re

from tokenizers import models

from tfm.data.tokenizer.base import Documents
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.learnt import Learnt, byte_alphabet, byte_level

#: A fixed number of threads, because sums in another order would give another vocabulary.
_THREADS = 4
#: Log-probability of unseen bytes, below that of the rarest token.
_UNSEEN = -10.0


@dataclasses.dataclass(frozen=True)
class Unigram(Learnt):
  """Tokens with probabilities, and the most probable segmentation (arXiv:1804.10959).

  `sentencepiece` prunes frequent substrings to `vocab` tokens by expectation maximisation. Encoding
  is a Viterbi search. The 256 bytes are always tokens, so any text comes back.

  Attributes:
    shrink: The fraction of tokens that each pruning keeps.
    longest: The longest token in bytes.
  """

  shrink: float = 0.75
  longest: int = 16

  def learn(self, documents: Documents, total: int | None = None) -> FileVocabulary:
    inner = byte_level(models.Unigram())
    # The trainer of `tokenizers` gives a different vocabulary in each run.
    counts: collections.Counter[str] = collections.Counter()
    for word, count in _chunks(self.sampled(documents, total)).items():
      for part, _ in inner.pre_tokenizer.pre_tokenize_str(word):
        counts[part] += count
    unseen = sorted(set(byte_alphabet()) - set().union(*counts))
    pieces = self._pieces(counts, self.vocab - len(unseen)) if counts else []
    low = min((score for _, score in pieces), default=0.0) + _UNSEEN
    inner.model = models.Unigram([*pieces, *((byte, low) for byte in unseen)])
    return FileVocabulary(inner)

  def _pieces(self, counts: collections.Counter[str], vocab: int) -> list[tuple[str, float]]:
    """Return up to `vocab` tokens with their log-probabilities, the most probable first."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=(f'{word}\t{counts[word]}' for word in sorted(counts)),
      input_format='tsv',
      model_writer=model,
      model_type='unigram',
      vocab_size=vocab + 1,  # with the unknown token
      hard_vocab_limit=False,
      shrinking_factor=self.shrink,
      max_sentencepiece_length=self.longest,
      character_coverage=1.0,
      normalization_rule_name='identity',
      remove_extra_whitespaces=False,
      add_dummy_prefix=False,
      split_by_unicode_script=False,
      split_by_number=False,
      split_by_whitespace=False,
      bos_id=-1,
      eos_id=-1,
      num_threads=_THREADS,
      minloglevel=2,
    )
    found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    numbers = [i for i in range(found.get_piece_size()) if not found.is_unknown(i)]
    return [(found.id_to_piece(i), found.get_score(i)) for i in numbers]

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 < self.shrink < 1:
      yield f'shrink: is {self.shrink}. Expected a fraction between 0 and 1.'
    if self.longest < 1:
      yield f'longest: is {self.longest}. Expected 1 byte or more.'


def _chunks(texts: Iterable[str]) -> collections.Counter[str]:
  """Count the parts of a text between places where no word crosses."""
  counts: collections.Counter[str] = collections.Counter()
  for text in texts:
    counts.update(re.split(r'(?<=\S)(?=[ \t\n\r\f\v])', text))
  return counts
