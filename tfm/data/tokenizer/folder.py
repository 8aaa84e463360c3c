"""The tokenizer of a published folder as a tokenizer to train with."""

from collections.abc import Iterator
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from tfm.core.errors import UserError
from tfm.data.tokenizer.base import Documents, Tokenizer, Vocabulary
from tfm.data.tokenizer.published import read_file, read_tokenizer

# Files in the same folder that change the tokenizer.
_RELATED = ('tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'config.json')


@dataclasses.dataclass(frozen=True)
class File(Tokenizer):
  """A published tokenizer.

  Attributes:
    path: A published folder, or the path of a `tokenizer.json`.
  """

  path: str = ''

  def learn(self, documents: Documents, total: int | None = None) -> Vocabulary:
    del documents, total
    self._content()
    path = Path(self.path).expanduser()
    vocabulary = read_tokenizer(path) if path.is_dir() else read_file(path)
    if vocabulary is None:
      raise UserError(
        f'data.tokenizer.path: {self.path} has no files of a tokenizer. Expected a tokenizer.json.'
      )
    return vocabulary

  def fixed(self) -> Vocabulary:
    return self.learn(lambda split: ())

  def identity(self) -> dict[str, Any]:
    return {'tokenizer': 'file', 'content': hashlib.sha256(self._content()).hexdigest()}

  def _content(self) -> bytes:
    path = Path(self.path).expanduser()
    try:
      if path.is_dir():
        names = sorted(p for p in path.iterdir() if _of_tokenizer(p))
        return b''.join(p.name.encode() + p.read_bytes() for p in names)
      related = [path.parent / name for name in _RELATED]
      return path.read_bytes() + b''.join(p.read_bytes() for p in related if p.is_file())
    except OSError as error:
      raise UserError(
        f'data.tokenizer.path: cannot read {self.path!r} ({error.strerror}). Expected a '
        'tokenizer.json, or a folder with one.'
      ) from error

  def check(self) -> Iterator[str]:
    if not self.path:
      yield 'path: is empty. Expected the path of a tokenizer.json, or of a folder with one.'


def _of_tokenizer(path: Path) -> bool:
  small = path.suffix in ('.json', '.txt', '.model', '.spm', '.jinja') or path.name in (
    'bpe.codes',
  )
  return path.is_file() and small and not path.name.endswith('.index.json')
