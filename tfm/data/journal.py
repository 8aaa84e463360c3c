"""The journal of a token store that is being written, so that a killed writer continues.

Tokens and document starts are appended to files. From time to time these are flushed to disk, and
then the journal notes how far they are. A resumed writer cuts the files to the noted lengths. It
reads the text before that place again, but encodes only the rest.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

import numpy as np

FILE = 'journal.json'
_BLOCK = 1 << 22


@dataclasses.dataclass
class Place:
  """How far a split is written.

  Attributes:
    split: Name of the split.
    documents: Documents that have begun, without empty ones.
    done: Characters of the last of them that are written.
    tokens: Tokens written.
    characters: Characters of text written.
    bytes: Bytes of text written, as UTF-8.
  """

  split: str
  documents: int = 0
  done: int = 0
  tokens: int = 0
  characters: int = 0
  bytes: int = 0


class Changed(Exception):
  """The text ends before the place of the journal, so it has changed."""


@dataclasses.dataclass
class Journal:
  """The state of a writer.

  Attributes:
    folder: The folder of the store.
    dtype: The dtype of tokens.
    place: The place in the current split.
    splits: The sizes of finished splits by name.
    digest: The hash of the tokens of all splits.
  """

  folder: Path
  dtype: np.dtype[Any]
  place: Place | None = None
  splits: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  digest: 'hashlib._Hash' = dataclasses.field(default_factory=hashlib.sha256)

  def save(self, *files: IO[bytes]) -> None:
    """Flush `files` to disk, and then note the place."""
    for file in files:
      file.flush()
      os.fsync(file.fileno())
    content = {
      'place': None if self.place is None else dataclasses.asdict(self.place),
      'splits': self.splits,
      'digest': self.digest.hexdigest(),
    }
    new = self.folder / f'{FILE}.new'
    with open(new, 'w', encoding='utf-8') as out:
      json.dump(content, out)
      out.flush()
      os.fsync(out.fileno())
    new.replace(self.folder / FILE)

  def restore(self) -> bool:
    """Continue at the place of the journal in `folder`; return False if there is none.

    Tokens are compared with the hash of the journal.
    """
    try:
      content = json.loads((self.folder / FILE).read_text('utf-8'))
      self.splits = content['splits']
      self.place = None if content['place'] is None else Place(**content['place'])
      for name, row in self.splits.items():
        self._hash(name, row['tokens'])
      if self.place is not None:
        self._hash(self.place.split, self.place.tokens)
        if (self.folder / starts_file(self.place.split)).stat().st_size < 8 * self.place.documents:
          return False
      return self.digest.hexdigest() == content['digest']
    except (OSError, ValueError, KeyError, TypeError):
      return False

  def _hash(self, split: str, tokens: int) -> None:
    """Add the first tokens of a split to the hash."""
    left = tokens * self.dtype.itemsize
    with open(self.folder / f'{split}.bin', 'rb') as file:
      while block := file.read(min(left, _BLOCK)):
        self.digest.update(block)
        left -= len(block)


def is_there(folder: Path) -> bool:
  """Return whether a killed writer left a journal in a folder."""
  return (folder / FILE).exists()


def starts_file(split: str) -> str:
  """Return the name of the file with the document starts of an unfinished split."""
  return f'{split}.starts.part'
