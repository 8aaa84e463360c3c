"""Decode UTF-8, with a choice for invalid bytes."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from tfm.core.errors import UserError
from tfm.data.rejects import reject

#: 'refuse' raises an error. 'replace' writes U+FFFD for invalid bytes. 'skip' leaves out the
#: invalid bytes of text files, and whole documents of other formats.
Invalid = Literal['refuse', 'replace', 'skip']

_REPLACED, _SKIPPED = 'invalid UTF-8 sequences replaced', 'invalid UTF-8 sequences skipped'
_MARK = '\ufffd'


class InvalidText(ValueError):
  """A document is not text. The message is a sentence with the reason."""


def decoded_blocks(content: Iterable[bytes], path: Path, invalid: Invalid) -> Iterator[str]:
  """Yield the text of the blocks of a file, with unchanged line ends.

  Args:
    content: The blocks.
    path: The file, for errors and counts.
    invalid: The choice for invalid bytes.

  Raises:
    UserError: A byte is invalid, and the choice is 'refuse'. The message has its offset.
  """
  at, pending = 0, b''
  for block in content:
    joined = pending + block
    text, used = _decoded(joined, at, path, invalid, final=False)
    if text:
      yield text
    at, pending = at + used, joined[used:]
  if pending and (text := _decoded(pending, at, path, invalid, final=True)[0]):
    yield text


def _decoded(content: bytes, at: int, path: Path, invalid: Invalid, final: bool) -> tuple[str, int]:
  """Return the text of a block that starts at byte `at`, and the number of its bytes used."""
  try:
    return codecs.utf_8_decode(content, 'strict', final)
  except UnicodeDecodeError as error:
    if invalid == 'refuse':
      raise UserError(
        f'data.files: {path} is not UTF-8: byte {at + error.start} is '
        f'0x{content[error.start]:02x} ({error.reason}). Expected UTF-8, for example from '
        'iconv -t UTF-8, or data.invalid=replace or skip.'
      ) from error
  text, used = codecs.utf_8_decode(content, 'replace', final)
  # A correct U+FFFD of the file is no error.
  count = text.count(_MARK) - content[:used].count(_MARK.encode())
  if invalid == 'replace':
    reject(_REPLACED, str(path), count)
    return text, used
  reject(_SKIPPED, str(path), count)
  return codecs.utf_8_decode(content, 'ignore', final)


def document(value: object, subject: str, path: Path, invalid: Invalid) -> str:
  """Return the text of a document that is a string or UTF-8 bytes.

  Args:
    value: The document.
    subject: Its name in errors.
    path: The file, for counts.
    invalid: The choice for invalid text.

  Raises:
    InvalidText: It is not text, or it is invalid and the choice is not 'replace'.
  """
  if isinstance(value, InvalidText):
    raise value
  if isinstance(value, str):
    if value.isascii():
      return value
    # JSON may hold halves of surrogate pairs, which no tokenizer accepts.
    value = value.encode('utf-8', 'surrogatepass')
  if not isinstance(value, bytes):
    kind = 'null' if value is None else f'of type {type(value).__name__}'
    raise InvalidText(f'{subject} is {kind}. Expected text.')
  try:
    return value.decode('utf-8')
  except UnicodeDecodeError as error:
    if invalid != 'replace':
      raise InvalidText(
        f'{subject} is not UTF-8 ({error.reason}). Expected UTF-8, or data.invalid=replace or skip.'
      ) from error
  text = value.decode('utf-8', 'replace')
  reject(_REPLACED, str(path), text.count(_MARK) - value.count(_MARK.encode()))
  return text
