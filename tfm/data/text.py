"""Files of text as a data source."""

from collections.abc import Iterator
import dataclasses
from pathlib import Path
from typing import Any

from tfm.data import readers, tail
from tfm.data.paths import expand, file_stamp
from tfm.data.readers import Document, Reading
from tfm.data.textdata import TextData
from tfm.data.utf8 import Invalid


@dataclasses.dataclass(frozen=True)
class Text(TextData):
  """Files of UTF-8 text, JSON lines or Parquet. The suffix decides the format.

  A text file is a document. It may be larger than memory, because it is read in blocks. `.jsonl`
  and `.ndjson` have a document on each line, `.parquet` and `.arrow` in each row. All except tables
  may be compressed (`.gz`, `.zst`).

  Attributes:
    files: A path, a glob, a folder (all files below it), or several of them with commas.
    val_files: The validation files, in the same form.
    val_tail: Without `val_files`, the last fraction of the characters of all text is for
      validation, as in nanoGPT. Only text files are split within a document: another document
      that starts before the cut is for training.
    field: The name of the text in JSON lines and tables.
    invalid: What happens to invalid UTF-8, and to rows or lines without text. 'refuse' raises an
      error, and 'skip' leaves them out. 'replace' writes U+FFFD for invalid UTF-8, and raises an
      error for rows and lines without text.
  """

  files: str = ''
  val_files: str = ''
  val_tail: float = 0.1
  field: str = 'text'
  invalid: Invalid = 'refuse'

  def documents(self, split: str) -> Iterator[str]:
    return map(''.join, self.streams(split))

  def streams(self, split: str) -> Iterator[Document]:
    reading = Reading(self.field, self.invalid)
    if not self.val_files:
      yield from tail.documents(self._paths('files'), reading, self.val_tail, split)
      return
    for path in self._paths('files' if split == 'train' else 'val_files'):
      yield from readers.documents(path, reading)

  def check_sources(self) -> None:
    self.identity()
    for path in self._all_paths():
      readers.check_packages(path)

  def identity(self) -> dict[str, Any]:
    val_tail = None if self.val_files else self.val_tail
    identity: dict[str, Any] = {'data': 'text', 'val_tail': val_tail}
    for name in self._fields():
      identity[name] = [file_stamp(path) for path in self._paths(name)]
    if not all(map(readers.is_text, self._all_paths())):
      identity['field'] = self.field
    if self.invalid != 'refuse':
      identity['invalid'] = self.invalid
    return identity

  def separated(self) -> bool:
    if not all(map(readers.is_text, self._all_paths())):
      return True
    return any(len(self._paths(name)) > 1 for name in self._fields())

  def total_bytes(self) -> int | None:
    paths = self._all_paths()
    if not all(map(readers.is_plain, paths)):
      return None
    return sum(path.stat().st_size for path in paths)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. Expected a path, a glob, a folder, or several of them with commas.'
    if not 0 <= self.val_tail < 1:
      yield f'val_tail: is {self.val_tail}. Expected a fraction from 0 to below 1.'
    if not self.field:
      yield "field: is empty. Expected the name of the text in JSON lines and tables, as 'text'."

  def _fields(self) -> list[str]:
    return ['files', 'val_files'] if self.val_files else ['files']

  def _paths(self, name: str) -> list[Path]:
    return expand(getattr(self, name), f'data.{name}')

  def _all_paths(self) -> list[Path]:
    return [path for name in self._fields() for path in self._paths(name)]
