"""GPT-NeoX Japanese: known words of up to three characters, and bytes for the rest."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

from tfm.core import errors
from tfm.data.tokenizer.published.splitter import Splitter

_SIGNS = (
  (' ', '<SP>'), ('\u3000', '<SP>'), ('\r\n', '<BR>'), ('\n', '<BR>'), ('\r', '<BR>'),
  ('\t', '<TAB>'), ('—', 'ー'),
  ('−', 'ー'),
)  # fmt: skip
_TEXTS = {
  '<SP>': ' ',
  '<BR>': '\n',
  '<TAB>': '\t',
  '<BLOCK>': '▀',
  '<KIGOU>': 'ǀ',
  '<U2000U2BFF>': '‖',
}
#: Ranges of two-byte UTF-8 codes that share one token.
_SYMBOLS = ((0xC2A1, 0xC2BF), (0xC780, 0xC783), (0xCAB9, 0xCBBF), (0xCC80, 0xCDA2))


class GptNeoXJapanese(Splitter):
  """Each line of `vocab.txt` is a token with its spellings; `emoji.json` names emoji."""

  files = ('vocab.txt', 'emoji.json')
  tokens = {
    'unk_token': '<|endoftext|>', 'pad_token': '<|endoftext|>', 'bos_token': '<|startoftext|>',
    'eos_token': '<|endoftext|>',
  }  # fmt: skip

  def __init__(self, folder: Path, fields: dict[str, Any]):
    super().__init__(folder, fields)
    if fields.get('do_clean_text'):
      raise errors.UserError(
        f'{folder}: do_clean_text is true, but tfm cannot replace addresses, dates and prices. '
        f'Expected false.'
      )
    lines = (folder / 'vocab.txt').read_text('utf-8').splitlines(keepends=True)
    self.spellings = [_spellings(line) for line in lines]
    self.numbers = {word: i for i, words in enumerate(self.spellings) for word in words}
    self.emoji = json.loads((folder / 'emoji.json').read_text('utf-8'))
    self.longest = max(map(len, self.numbers))

  def vocab(self) -> dict[str, int]:
    return {','.join(words): i for i, words in enumerate(self.spellings)}

  def split(self, text: str) -> list[str]:
    for sign, name in [*_SIGNS, *self.emoji['emoji'].items()]:
      text = text.replace(sign, name)
    found, at = [], 0
    while at < len(text):
      word = self._word(text, at)
      found += [word] if word else _unknown(text[at])
      at += len(word) or 1
    return found

  def _word(self, text: str, at: int) -> str:
    """Return the word at an index: a bracketed name, else the known word of the smallest id."""
    last = min(len(text), at + self.longest + 1) if text[at] == '<' else at + 3
    known = []
    for end in range(last, at, -1):
      word = text[at:end]
      if word in self.numbers:
        if word[0] == '<' and len(word) > 2:
          return word
        known.append(word)
    return min(known, key=self.numbers.__getitem__, default='')

  def number(self, token: str) -> int:
    return self.numbers.get(token, self.numbers[self.unknown])

  def token(self, number: int) -> str:
    word = self.spellings[number][0]
    if word.startswith('<|byte') and word.endswith('|>'):
      return bytes([int(word[6:-2])]).decode('utf-8', 'replace')
    if word.startswith('<|emoji') and word.endswith('|>'):
      return self.emoji['emoji_inv'][word]
    return _TEXTS.get(word, word)

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    del special
    return ''.join(tokens).strip()


def _spellings(line: str) -> list[str]:
  single = line == ',' or ',' not in line
  return [line.rstrip('\n')] if single else line.rstrip('\n').split(',')


def _unknown(character: str) -> list[str]:
  code = character.encode()
  number = int.from_bytes(code)
  if len(code) == 2 and any(a <= number <= b for a, b in _SYMBOLS):
    return ['<KIGOU>']
  if len(code) == 3 and 0xE28080 <= number <= 0xE2B07F:
    return ['<U2000U2BFF>']
  return [f'<|byte{byte}|>' for byte in code]


SPLITTERS: dict[str, type[Splitter]] = {'GPTNeoXJapaneseTokenizer': GptNeoXJapanese}
