"""The tokenizer of a published folder, or of a `tokenizer.json`, as one to train with."""

from collections.abc import Iterator
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from tfm.core.errors import UserError
from tfm.data.tokenizer.base import Documents, Tokenizer, Vocabulary
from tfm.data.tokenizer.published import read_file, read_tokenizer

# Files in the same folder that change the tokenizer.
_BESIDE = ('tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'config.json')


@dataclasses.dataclass(frozen=True)
class File(Tokenizer):
  """The tokenizer of `path`: a published folder, or a `tokenizer.json` in one."""

  path: str = ''

  def learn(self, documents: Documents, total: int | None = None) -> Vocabulary:
    del documents, total
    self._content()
    path = Path(self.path).expanduser()
    found = read_tokenizer(path) if path.is_dir() else read_file(path)
    if found is None:
      raise UserError(
        f'data.tokenizer.path: {self.path} has no files of a tokenizer. Expected a tokenizer.json.'
      )
    return found

  def given(self) -> Vocabulary:
    return self.learn(lambda split: ())

  def identity(self) -> dict[str, Any]:
    return {'tokenizer': 'file', 'content': hashlib.sha256(self._content()).hexdigest()}

  def _content(self) -> bytes:
    path = Path(self.path).expanduser()
    try:
      if path.is_dir():
        names = sorted(p for p in path.iterdir() if _of_tokenizer(p))
        return b''.join(p.name.encode() + p.read_bytes() for p in names)
      beside = [path.parent / name for name in _BESIDE]
      return path.read_bytes() + b''.join(p.read_bytes() for p in beside if p.is_file())
    except OSError as error:
      raise UserError(
        f'data.tokenizer.path: cannot read {self.path!r}: {error.strerror}. Expected a '
        f'tokenizer.json, or a folder '
        'that holds one.'
      ) from error

  def check(self) -> Iterator[str]:
    if not self.path:
      yield 'path: is empty. Expected the path of a tokenizer.json, or of a folder that holds one.'


def _of_tokenizer(path: Path) -> bool:
  small = path.suffix in ('.json', '.txt', '.model', '.spm', '.jinja') or path.name in (
    'bpe.codes',
  )
  return path.is_file() and small and not path.name.endswith('.index.json')
