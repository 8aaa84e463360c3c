"""Tokenizers. `load` reads the vocabulary of a checkpoint."""

from pathlib import Path

from tfm.core import json_text
from tfm.core.errors import UserError
from tfm.core.registry import Table
from tfm.data.tokenizer.base import FILE, Documents, StreamDecoder, Tokenizer, Vocabulary
from tfm.data.tokenizer.bpe import Bpe
from tfm.data.tokenizer.byte import Byte, ByteVocabulary
from tfm.data.tokenizer.char import Char, CharVocabulary
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.folder import File
from tfm.data.tokenizer.greedy import Greedy
from tfm.data.tokenizer.learnt import Learnt
from tfm.data.tokenizer.limits import reported
from tfm.data.tokenizer.published.refused import RefusedVocabulary
from tfm.data.tokenizer.published.slow import SlowVocabulary
from tfm.data.tokenizer.unigram import Unigram
from tfm.data.tokenizer.word import Word
from tfm.data.tokenizer.wordpiece import WordPiece

__all__ = [
  'FILE', 'TABLE', 'Bpe', 'Byte', 'Char', 'Documents', 'File', 'Greedy', 'Learnt', 'StreamDecoder',
  'Tokenizer', 'Unigram', 'Vocabulary', 'Word', 'WordPiece', 'load',
]  # fmt: skip

TABLE = Table(
  'tokenizer', byte=Byte, char=Char, bpe=Bpe, file=File, greedy=Greedy, unigram=Unigram, word=Word,
  wordpiece=WordPiece,
)  # fmt: skip
_KINDS: dict[str, type[Vocabulary]] = {
  v.kind: v
  for v in (ByteVocabulary, CharVocabulary, FileVocabulary, SlowVocabulary, RefusedVocabulary)
}


def load(directory: str | Path) -> Vocabulary:
  """Return the vocabulary that `Vocabulary.save(directory)` wrote.

  Raises:
    UserError: The file is missing or damaged.
  """
  path = Path(directory) / FILE
  try:
    state = json_text.parse(path.read_text('utf-8'))
    with reported(f'{path}: is not a vocabulary', 'a file that tfm wrote'):
      return _KINDS[state['kind']].from_state(state)
  except OSError as error:
    raise UserError(
      f'{path}: cannot read the vocabulary ({error.strerror}). Expected a file that tfm wrote.'
    ) from error
  except ValueError as error:
    raise UserError(
      f'{path}: is not a vocabulary ({error!r}). Expected a file that tfm wrote.'
    ) from error
