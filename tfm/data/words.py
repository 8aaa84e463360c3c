"""Words of token sequences, from the spelling of the tokens."""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary

#: SentencePiece's mark of a space before a word.
_SPACE = '▁'


class WordBounds(NamedTuple):
  """Where words begin and end, by the spelling of tokens.

  Attributes:
    begins: Whether a word begins with the token, bool [vocab].
    ends: Whether a word ends with the token, bool [vocab].
  """

  begins: NDArray[np.bool_]
  ends: NDArray[np.bool_]


@functools.lru_cache(maxsize=4)
def word_bounds(vocabulary: Vocabulary) -> WordBounds:
  """Return the bounds of words for each token id.

  WordPiece marks tokens inside a word (`##ing`), SentencePiece marks the space before a word
  (`▁the`), and old BPE marks the end of a word (`the</w>`). In byte-level BPE, bytes and
  characters, a word begins with white space. Special tokens are words of their own.

  Args:
    vocabulary: The vocabulary.

  Returns:
    Two tables over token ids.

  Raises:
    UserError: The tokens have no such marks.
  """
  begins, ends = np.zeros((2, vocabulary.size), np.bool_)
  table = vocabulary.token_bytes()
  if table is not None:
    begins[: len(table)] = [text[:1].isspace() for text in table]
  elif isinstance(vocabulary, FileVocabulary):
    _mark(vocabulary, begins, ends)
  else:
    raise _no_words()
  special = vocabulary.is_special
  return WordBounds(begins | special, ends | special)


def word_numbers(
  tokens: NDArray[np.int32], segments: NDArray[np.int32], bounds: WordBounds
) -> NDArray[np.int64]:
  """Return the number of the word of each token, from 0 in each sequence, int64 [b, n].

  Args:
    tokens: Token ids [b, n].
    segments: Document numbers [b, n]. A word never spans two of them.
    bounds: The bounds of words.

  Returns:
    The numbers, which do not decrease.
  """
  new = bounds.begins[tokens[:, 1:]] | bounds.ends[tokens[:, :-1]]
  new |= segments[:, 1:] != segments[:, :-1]
  return np.pad(np.cumsum(new, 1), ((0, 0), (1, 0)))


def _mark(vocabulary: FileVocabulary, begins: NDArray[np.bool_], ends: NDArray[np.bool_]) -> None:
  """Fill both tables from the spelling of tokens with marks of words."""
  model = vocabulary.inner.model
  kind = type(model).__name__
  inside = getattr(model, 'continuing_subword_prefix', None) or ''
  end = getattr(model, 'end_of_word_suffix', None) or ''
  pieces = [(t, i) for t, i in vocabulary.inner.get_vocab().items() if i < vocabulary.base]
  spaced = any(text.startswith(_SPACE) for text, _ in pieces)
  if not (inside or end or spaced or kind == 'WordLevel'):
    raise _no_words()
  for text, i in pieces:
    if end:
      ends[i] = text.endswith(end)
    elif inside:
      begins[i] = not text.startswith(inside)
    else:
      begins[i] = kind == 'WordLevel' or text.startswith(_SPACE)


def _no_words() -> UserError:
  return UserError(
    'task.whole_word: the tokens have no marks of words. Expected a tokenizer with ## inside '
    'words, with spaces before words, or with </w> after them; or whole_word=False.'
  )
