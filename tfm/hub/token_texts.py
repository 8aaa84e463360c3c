"""The text of every token id, to compare two vocabularies and to find the tokens of one in the
other.
"""

from collections.abc import Sequence
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary

_BYTE = re.compile('<0x([0-9A-Fa-f]{2})>')


class TokenText(NamedTuple):
  """The bytes of a token in a text, or the name of a special token."""

  text: bytes
  special: bool = False

  def __str__(self) -> str:
    name = self.text.decode('utf-8', 'backslashreplace')
    return f'special token {name}' if self.special else repr(name)


class Comparison(NamedTuple):
  """Two vocabularies, id by id.

  Attributes:
    old, new: The text of each id.
    differ: The ids that both have with different texts.
  """

  old: list[TokenText]
  new: list[TokenText]
  differ: list[int]

  @property
  def shared(self) -> int:
    """The number of ids that both have."""
    return min(len(self.old), len(self.new))

  @property
  def agree(self) -> int:
    """The number of ids with the same text in both."""
    return self.shared - len(self.differ)


def compare(old: Vocabulary, new: Vocabulary) -> Comparison:
  """Return how two vocabularies differ."""
  before, after = token_texts(old), token_texts(new)
  differ = [i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]
  return Comparison(before, after, differ)


def token_texts(vocabulary: Vocabulary) -> list[TokenText]:
  """Return the text of each id. Spaces are spaces, whatever the tokenizer writes for them."""
  added = {
    i: TokenText(name.encode(), True)
    for name, i in vocabulary.specials.items()
    if i >= vocabulary.base
  }
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
    pieces = _written(spelled)
    found = [
      text if text.special else TokenText(piece) for text, piece in zip(found, pieces, strict=False)
    ]
  return found


def rows_by_text(
  old: Vocabulary, new: Vocabulary, texts: Comparison, size: int
) -> NDArray[np.int32]:
  """Return, for each of the `size` rows of a new table, the row of the old table with the same
  token, -1 for none.

  Special tokens are matched by their role (end, padding, mask) before their spelling.
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
  """Return the tokens as the tokenizer writes them, or None if it has no such form."""
  if not isinstance(vocabulary, FileVocabulary):
    return None
  return [vocabulary.inner.id_to_token(i) or '' for i in range(vocabulary.size)]


def _written(pieces: Sequence[str]) -> list[bytes]:
  """Return the bytes of SentencePiece or WordPiece tokens."""
  words = any(piece.startswith('##') for piece in pieces) and not any(
    '▁' in piece for piece in pieces
  )
  return [_word_piece(piece) if words else _sentence_piece(piece) for piece in pieces]


def _word_piece(piece: str) -> bytes:
  return (piece[2:] if piece.startswith('##') else f' {piece}').encode()


def _sentence_piece(piece: str) -> bytes:
  found = _BYTE.fullmatch(piece)
  # A printable byte has a token besides its fallback, which is never used and must not replace it.
  if found and not 0x21 <= (byte := int(found[1], 16)) < 0x7F:
    return bytes([byte])
  return piece.replace('▁', ' ').encode()
