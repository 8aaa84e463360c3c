"""ByT5: a token for each UTF-8 byte."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tfm.data.tokenizer.published.splitter import Splitter, end

_OFFSET = 3


def _bytes(token: str) -> bytes:
  """Return the byte that a token of one character stands for, else its UTF-8 text."""
  is_byte = len(token) == 1 and ord(token) < 256
  return bytes([ord(token)]) if is_byte else token.encode()


class ByT5(Splitter):
  """Three special tokens, then the bytes, then the sentinels."""

  tokens = {'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<pad>'}

  def __init__(self, folder: Path, fields: dict[str, Any]):
    count = fields.get('extra_ids', 125)
    if count > 0 and fields.get('additional_special_tokens') is None:
      fields['additional_special_tokens'] = [f'<extra_id_{i}>' for i in range(count)]
    super().__init__(folder, fields)
    values = [fields[name] for name in ('pad_token', 'eos_token', 'unk_token')]
    self.first = dict(enumerate(map(_stripping, values)))

  def added(self) -> dict[int, AddedToken]:
    return self.first

  def vocab(self) -> dict[str, int]:
    return {chr(i): i + _OFFSET for i in range(256)}

  def split(self, text: str) -> list[str]:
    return [chr(byte) for byte in text.encode('utf-8')]

  def number(self, token: str) -> int:
    # Tokens of several characters are unknown.
    return ord(token) + _OFFSET if len(token) == 1 and ord(token) < 256 else 2

  def token(self, number: int) -> str:
    return chr(number - _OFFSET) if number < 256 + _OFFSET else ''

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    return b''.join(map(_bytes, tokens)).decode('utf-8', 'ignore')

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    return end(ids, named)


def _stripping(value: str | AddedToken) -> AddedToken:
  return AddedToken(value, lstrip=True, rstrip=True) if isinstance(value, str) else value


SPLITTERS: dict[str, type[Splitter]] = {'ByT5Tokenizer': ByT5}
