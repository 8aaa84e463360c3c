"""Compare two vocabularies by the text of their tokens."""

from collections.abc import Sequence
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary

_BYTE = re.compile('<0x([0-9A-Fa-f]{2})>')


class TokenText(NamedTuple):
  """The text of a token.

  Attributes:
    text: The bytes of the token in a text, or the name of a special token.
    special: Whether the token is special.
  """

  text: bytes
  special: bool = False

  def __str__(self) -> str:
    name = self.text.decode('utf-8', 'backslashreplace')
    return f'special token {name}' if self.special else repr(name)


class Comparison(NamedTuple):
  """A comparison of two vocabularies by token id.

  Attributes:
    old: The text of each id of the old vocabulary.
    new: The text of each id of the new vocabulary.
    differ: The shared ids with different texts.
  """

  old: list[TokenText]
  new: list[TokenText]
  differ: list[int]

  @property
  def shared(self) -> int:
    """The number of ids in both vocabularies."""
    return min(len(self.old), len(self.new))

  @property
  def agree(self) -> int:
    """The number of ids with the same text in both vocabularies."""
    return self.shared - len(self.differ)


def compare(old: Vocabulary, new: Vocabulary) -> Comparison:
  """Compare two vocabularies by token id."""
  before, after = token_texts(old), token_texts(new)
  differ = [i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]
  return Comparison(before, after, differ)


def token_texts(vocabulary: Vocabulary) -> list[TokenText]:
  """Return the text of each token id, with plain spaces for the tokenizer's space marks."""
  added = {}
  for name, i in vocabulary.specials.items():
    if i >= vocabulary.base:
      added[i] = TokenText(name.encode(), True)
  special = vocabulary.is_special
  table = vocabulary.token_bytes()
  spelled = _spelled(vocabulary)
  found = []
  for i in range(vocabulary.size):
    if i in added:
      found.append(added[i])
    elif special[i]:
      found.append(TokenText((spelled[i] if spelled else '').encode(), True))
    else:
      found.append(TokenText(table[i] if table is not None else b''))
  if table is None and spelled:
    for i, piece in enumerate(_piece_bytes(spelled)):
      if not found[i].special:
        found[i] = TokenText(piece)
  return found


def rows_by_text(
  old: Vocabulary, new: Vocabulary, texts: Comparison, size: int
) -> NDArray[np.int32]:
  """Return the row of the old token table for each row of the new one.

  Tokens are matched by text, special tokens first by role (end, padding, mask).

  Args:
    old: The vocabulary of the old table.
    new: The vocabulary of the new table.
    texts: The texts of both vocabularies (see `compare`).
    size: The number of rows of the new table.

  Returns:
    Row indices, `[size]`, -1 for tokens that the old vocabulary lacks.
  """
  rows = np.full(size, -1, np.int32)
  place: dict[TokenText, int] = {}
  for i, text in enumerate(texts.old):
    place.setdefault(text, i)
  for i, text in enumerate(texts.new[:size]):
    rows[i] = place.get(text, -1) if text.text else -1
  for role, i in new.specials.items():
    if role in old.specials and i < size:
      rows[i] = old.specials[role]
  return rows


def _spelled(vocabulary: Vocabulary) -> list[str] | None:
  """Return the spelling of each token in a tokenizer file, None for other tokenizers."""
  if not isinstance(vocabulary, FileVocabulary):
    return None
  return [vocabulary.inner.id_to_token(i) or '' for i in range(vocabulary.size)]


def _piece_bytes(pieces: Sequence[str]) -> list[bytes]:
  """Return the bytes of SentencePiece or WordPiece tokens."""
  has_marks = any('▁' in piece for piece in pieces)
  is_word_piece = not has_marks and any(piece.startswith('##') for piece in pieces)
  return list(map(_word_piece if is_word_piece else _sentence_piece, pieces))


def _word_piece(piece: str) -> bytes:
  return (piece[2:] if piece.startswith('##') else f' {piece}').encode()


def _sentence_piece(piece: str) -> bytes:
  found = _BYTE.fullmatch(piece)
  # Printable bytes also have a regular token, which the unused fallback must not replace.
  if found and not 0x21 <= (byte := int(found[1], 16)) < 0x7F:
    return bytes([byte])
  return piece.replace('▁', ' ').encode()
