"""ProphetNet: WordPiece as in BERT, with the vocabulary in `prophetnet.tokenizer`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
import unicodedata

from tfm.data.tokenizer.published.splitter import Splitter

_LONGEST = 100
_CHINESE = (
  (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
  (0x2B820, 0x2CEAF),
  (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class ProphetNet(Splitter):
  """Words, split greedily into the longest pieces."""

  files = ('prophetnet.tokenizer',)
  tokens = {
    'unk_token': '[UNK]', 'sep_token': '[SEP]', 'x_sep_token': '[X_SEP]', 'pad_token': '[PAD]',
    'mask_token': '[MASK]',
    'clean_up_tokenization_spaces': True,
  }  # fmt: skip

  def __init__(self, folder: Path, fields: dict[str, Any]):
    super().__init__(folder, fields)
    lines = (folder / self.files[0]).read_text('utf-8').splitlines(keepends=True)
    self.numbers = {line.rstrip('\n'): i for i, line in enumerate(lines)}
    self.texts = {number: text for text, number in self.numbers.items()}
    self.lower = fields.get('do_lower_case', True)
    accents = fields.get('strip_accents')
    self.plain = self.lower if accents is None else accents

  def vocab(self) -> dict[str, int]:
    return self.numbers

  def split(self, text: str) -> list[str]:
    return self.literal(text, frozenset())

  def literal(self, text: str, special: frozenset[str]) -> list[str]:
    basic = self.fields.get('do_basic_tokenize', True)
    words = self._words(text, special) if basic else text.split()
    return [piece for word in words for piece in self._pieces(word)]

  def _words(self, text: str, whole: frozenset[str]) -> list[str]:
    """Return the words and signs of a text. Words in `whole` are unchanged."""
    text = ''.join(map(_cleaned, text))
    if self.fields.get('tokenize_chinese_chars', True):
      text = _spaced(text, _is_chinese)
    parts = []
    for word in unicodedata.normalize('NFC', text).split():
      parts += [word] if word in whole else self._parts(word)
    return parts

  def _parts(self, word: str) -> list[str]:
    word = word.lower() if self.lower else word
    if self.plain:
      letters = unicodedata.normalize('NFD', word)
      word = ''.join(c for c in letters if unicodedata.category(c) != 'Mn')
    return _spaced(word, is_punctuation).split()

  def _pieces(self, word: str) -> list[str]:
    if len(word) > _LONGEST:
      return [self.unknown]
    pieces, start = [], 0
    while start < len(word):
      mark = '##' if start else ''
      ends = (end for end in range(len(word), start, -1) if mark + word[start:end] in self.numbers)
      end = next(ends, None)
      if end is None:
        return [self.unknown]
      pieces.append(mark + word[start:end])
      start = end
    return pieces

  def number(self, token: str) -> int:
    return self.numbers.get(token, self.numbers[self.unknown])

  def token(self, number: int) -> str:
    return self.texts.get(number, self.unknown)

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    del special
    return ' '.join(tokens).replace(' ##', '').strip()

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    return [*ids, named['sep_token']]


def _cleaned(character: str) -> str:
  """Return a space for white space, '' for invisible characters, else the character."""
  if character in '\t\n\r' or unicodedata.category(character) == 'Zs':
    return ' '
  hidden = character in '\0\ufffd' or unicodedata.category(character).startswith('C')
  return '' if hidden else character


def is_punctuation(character: str) -> bool:
  """Return whether a character is punctuation, including all ASCII signs."""
  point = ord(character)
  ascii_sign = 33 <= point <= 47 or 58 <= point <= 64 or 91 <= point <= 96 or 123 <= point <= 126
  return ascii_sign or unicodedata.category(character).startswith('P')


def _spaced(text: str, is_word: Callable[[str], bool]) -> str:
  """Put spaces around the characters that are words of their own."""
  return text.translate({ord(c): f' {c} ' for c in text if is_word(c)})


def _is_chinese(character: str) -> bool:
  return any(first <= ord(character) <= last for first, last in _CHINESE)


SPLITTERS: dict[str, type[Splitter]] = {'ProphetNetTokenizer': ProphetNet}
