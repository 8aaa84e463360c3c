"""Datasets that the `datasets` package of Hugging Face saved to disk."""

from collections.abc import Iterator
import dataclasses
import json
from pathlib import Path
from typing import Any

from tfm.core.errors import UserError, unknown
from tfm.data import readers, tail
from tfm.data.paths import file_stamp
from tfm.data.readers import Document, Reading
from tfm.data.textdata import TextData
from tfm.data.utf8 import Invalid

_DICT, _STATE = 'dataset_dict.json', 'state.json'


@dataclasses.dataclass(frozen=True)
class HfDataset(TextData):
  """A folder of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`, each row a document.

  The Arrow files are read with pyarrow. The `datasets` package is not needed.

  Attributes:
    folder: The folder.
    split: The training split. A folder of a single `Dataset` is 'train'.
    val_split: The validation split. Empty takes the end of `split` instead.
    val_tail: Without `val_split`, the last documents with this fraction of the characters are for
      validation, as in `text`.
    field: The column of the text.
    invalid: What happens to rows without valid text, as in `text`.
  """

  folder: str = ''
  split: str = 'train'
  val_split: str = ''
  val_tail: float = 0.1
  field: str = 'text'
  invalid: Invalid = 'refuse'

  def documents(self, split: str) -> Iterator[str]:
    return map(''.join, self.streams(split))

  def streams(self, split: str) -> Iterator[Document]:
    reading = Reading(self.field, self.invalid)
    if not self.val_split:
      yield from tail.documents(self._files(self.split), reading, self.val_tail, split)
      return
    for path in self._files(self.split if split == 'train' else self.val_split):
      yield from readers.documents(path, reading)

  def check_sources(self) -> None:
    self.identity()
    for path in self._files(self.split):
      readers.check_packages(path)

  def identity(self) -> dict[str, Any]:
    identity: dict[str, Any] = {'data': 'hf_dataset', 'field': self.field, 'invalid': self.invalid}
    identity['train'] = list(map(file_stamp, self._files(self.split)))
    if self.val_split:
      identity['val'] = list(map(file_stamp, self._files(self.val_split)))
    else:
      identity['val_tail'] = self.val_tail
    return identity

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.folder:
      yield 'folder: is empty. Expected a folder that save_to_disk of the datasets package wrote.'
    if not self.split:
      yield "split: is empty. Expected the name of a split, as 'train'."
    if not 0 <= self.val_tail < 1:
      yield f'val_tail: is {self.val_tail}. Expected a fraction from 0 to below 1.'

  def _files(self, split: str) -> list[Path]:
    """Return the Arrow files of a split, in order.

    Raises:
      UserError: The folder is not a saved dataset, or has no such split.
    """
    folder = Path(self.folder).expanduser()
    if (folder / _DICT).exists():
      splits = _json(folder / _DICT, 'splits')
      folder = folder / split
    elif (folder / _STATE).exists():
      splits = ['train']
    else:
      raise UserError(
        f'data.folder: {folder} has no {_DICT} or {_STATE}. Expected a folder that save_to_disk of '
        'the datasets package wrote.'
      )
    if split not in splits:
      raise UserError(f'data: {self.folder}: {unknown("split", split, splits)}')
    if (folder / 'indices.arrow').exists():
      raise UserError(
        f'data.folder: {folder} is a selection of rows by an old version of the datasets package. '
        'Expected a dataset saved by version 2 or newer.'
      )
    return [folder / row['filename'] for row in _json(folder / _STATE, '_data_files')]


def _json(path: Path, key: str) -> Any:
  """Return the list at a key of a JSON file."""
  try:
    value = json.loads(path.read_text('utf-8'))[key]
  except OSError as error:
    raise UserError(
      f'data.folder: cannot read {path} ({error.strerror}). Expected a complete folder.'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'data.folder: {path} is damaged ({error!r}). Expected JSON with {key!r}.'
    ) from error
  return value
