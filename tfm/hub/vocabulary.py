"""The tokenizer of a published folder."""

from pathlib import Path
from typing import Any

import tokenizers

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary


def find_vocabulary(folder: Path) -> Vocabulary | None:
  """The tokenizer whose files stand in the folder, or None if none do.

  Raises: UserError for files that cannot be read.
  """
  for name, read in _READERS.items():
    if (path := folder / name).is_file():
      try:
        inner = read(path)
      except errors.UserError:
        raise
      except Exception as error:
        raise errors.UserError(f'{path}: is not a tokenizer that can be read: {error}.') from error
      found = FileVocabulary(inner)
      return found.with_specials([n for n in ('eos', 'pad', 'mask') if found.finds(n)])
  return None


def _file(path: Path) -> tokenizers.Tokenizer:
  return tokenizers.Tokenizer.from_file(str(path))


_READERS: dict[str, Any] = {'tokenizer.json': _file}
