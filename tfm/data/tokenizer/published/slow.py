"""The vocabulary of a class of tokenizers that `transformers` wrote in Python."""

import base64
from collections.abc import Iterable, Mapping, Sequence
import functools
from pathlib import Path
import re
import tempfile
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken

from tfm.core import errors
from tfm.data.tokenizer.base import Vocabulary
from tfm.data.tokenizer.decoding import clean, uncleaned
from tfm.data.tokenizer.published import byte_text, japanese, prophetnet, sentences, words
from tfm.data.tokenizer.published.folder import CONFIG, NAMED, read_fields
from tfm.data.tokenizer.published.splitter import Splitter

#: class -> how it splits and joins text.
SPLITTERS: dict[str, type[Splitter]] = {
  **byte_text.SPLITTERS,
  **japanese.SPLITTERS,
  **prophetnet.SPLITTERS,
  **sentences.SPLITTERS,
  **words.SPLITTERS,
}
_ALWAYS = (CONFIG, 'special_tokens_map.json', 'added_tokens.json')


class SlowVocabulary(Vocabulary):
  """A vocabulary over a `Splitter`. Special and added tokens are cut out of a text first; the
  splitter gets the rest.

  Args:
    name: The class of the tokenizer.
    folder: The folder of its files, which the vocabulary keeps.
    framed: Prompts get the special tokens around them that the class puts there.
    settings: Overrides of the folder's settings.
    specials: The ids of special tokens by our names for them.
  """

  kind: ClassVar[str] = 'slow'

  def __init__(
    self,
    name: str,
    folder: Path,
    framed: bool = True,
    settings: Mapping[str, Any] | None = None,
    specials: dict[str, int] | None = None,
  ):
    self.name, self.framed, self.settings = name, framed, dict(settings or {})
    # Two sizes of GPT-SW3 differ by this name.
    self.folder = folder.name
    self.files = _contents(folder, SPLITTERS[name])
    fields = {**read_fields(folder), **self.settings}
    for key, value in SPLITTERS[name].tokens.items():
      fields.setdefault(key, value)
    self.splitter = SPLITTERS[name](folder, fields)
    self._named, self._extra = _special_tokens(fields)
    self._added = {**self.splitter.added(), **fields['added_tokens_decoder']}
    self._number = {token.content: number for number, token in self._added.items()}
    self._words: list[str] = [*self._number, *self.splitter.whole()]
    self._add([text for text in self._special if text not in self._number])
    self.splitter.mend(self._added)
    self._number = {token.content: number for number, token in self._added.items()}
    known = [self.splitter.size() - 1, *self._added, *self.special_numbers]
    super().__init__(max(known) + 1, specials if specials is not None else self._ours())
    self._clean = bool(fields.get('clean_up_tokenization_spaces'))
    self._literal = bool(fields.get('split_special_tokens'))

  @property
  def _special(self) -> list[str]:
    return list(dict.fromkeys([*self._named.values(), *self._extra]))

  @functools.cached_property
  def special_numbers(self) -> frozenset[int]:
    """The ids of its special tokens."""
    return frozenset(self._id(text) for text in self._special)

  def _add(self, texts: Sequence[str]) -> None:
    known = self.splitter.vocab()
    current = known if self.splitter.pieces else known | self._number
    new = self.splitter.first_new(self._added)
    for text in texts:
      number = current.get(text)
      if number is None:
        number, new = new, new + 1
      self._added[number] = AddedToken(text, normalized=False, special=True)
      self._words.append(text)

  def _ours(self) -> dict[str, int]:
    return {
      name.removesuffix('_token'): self._id(self._named[name])
      for name in NAMED
      if name in self._named
    }

  def _id(self, token: str) -> int:
    return self._number[token] if token in self._number else self.splitter.number(token)

  @functools.cached_property
  def _pattern(self) -> re.Pattern[str]:
    texts = sorted({text for text in [*self._words, *self._special] if text}, key=len, reverse=True)
    return re.compile('(' + '|'.join(map(re.escape, texts)) + ')' if texts else '(?!)')

  def _tokens(self, text: str) -> list[str]:
    """Return the tokens of a text, parsing special tokens."""
    special = frozenset(self._special)
    parts = [part for part in self._pattern.split(self.splitter.prepare(text)) if part]
    alone = {*self._number, *special}
    parts = _spaced(parts, {token.content: token for token in self._added.values()})
    tokens: list[str] = []
    for part in parts:
      tokens += ([part] if part in alone else self.splitter.split(part)) if part else []
    return self.splitter.tidy(tokens, special)

  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    return [np.array(self._plain(text), np.int32) for text in texts]

  def _plain(self, text: str) -> list[int]:
    """Return the ids of a text, reading special tokens as ordinary text."""
    unknown = self._id(self.splitter.unknown)
    ids = (self.splitter.number(t) for t in self.splitter.split(self.splitter.prepare(text)))
    return [unknown if i in self.special_numbers else i for i in ids]

  def prompt(self, text: str, framed: bool = True) -> NDArray[np.int32]:
    tokens = (
      self.splitter.literal(text, frozenset(self._special)) if self._literal else self._tokens(text)
    )
    ids = [self._id(token) for token in tokens]
    if framed and self.framed:
      ids = self.splitter.frame(ids, {name: self._id(token) for name, token in self._named.items()})
    return np.array(ids, np.int32)

  def decode(self, ids: Iterable[int]) -> str:
    left_out = {*self.special_numbers, *self.specials.values()}
    kept = [i for i in map(int, ids) if i not in left_out and 0 <= i < self.base]
    tokens = [self._added[i].content if i in self._added else self.splitter.token(i) for i in kept]
    text = self.splitter.join(tokens, frozenset(self._special))
    return clean(text) if self._clean else text

  def token_id(self, text: str) -> int | None:
    number = self._id(text)
    return (
      None
      if number == self._id(self.splitter.unknown) and text != self.splitter.unknown
      else number
    )

  def unsettled(self, text: str) -> int:
    marked = (
      len(self.splitter.mark) if self.splitter.mark and text.endswith(self.splitter.mark) else 0
    )
    return max(marked, uncleaned(text) if self._clean else 0)

  def token_bytes(self) -> None:
    return None

  @property
  def is_special(self) -> NDArray[np.bool_]:
    table = super().is_special
    table[list(self.special_numbers)] = True
    return table

  def state(self) -> dict[str, Any]:
    files = {name: base64.b64encode(content).decode() for name, content in self.files.items()}
    return {
      'class': self.name,
      'framed': self.framed,
      'settings': self.settings,
      'folder': self.folder,
      'files': files,
    }

  def same(self, other: Vocabulary) -> bool:
    plain = lambda vocabulary: {**vocabulary.state(), 'folder': None}
    return (self.kind, self.specials, plain(self)) == (other.kind, other.specials, plain(other))

  def save(self, directory: str | Path) -> None:
    """Also write the files of the tokenizer, which `transformers` reads."""
    super().save(directory)
    for name, content in self.files.items():
      (Path(directory) / name).write_bytes(content)

  @classmethod
  def from_state(cls, state: dict[str, Any]) -> 'SlowVocabulary':
    with tempfile.TemporaryDirectory() as name:
      folder = Path(name) / state['folder']
      folder.mkdir(exist_ok=True)
      for file, content in state['files'].items():
        (folder / file).write_bytes(base64.b64decode(content))
      return cls(state['class'], folder, state['framed'], state['settings'], state['specials'])


def read_slow(
  folder: Path, name: str, framed: bool, settings: Mapping[str, Any]
) -> SlowVocabulary | None:
  """Return the vocabulary of a folder; None if its files are not there.

  Raises:
    UserError: the files cannot be read.
  """
  needed = SPLITTERS[name].files
  if not all((folder / file).is_file() for file in needed):
    return None
  try:
    return SlowVocabulary(name, folder, framed, settings)
  except errors.UserError:
    raise
  except Exception as error:
    raise errors.UserError(f'{folder}: its tokenizer ({name}) cannot be read: {error}.') from error


def _contents(folder: Path, splitter: type[Splitter]) -> dict[str, bytes]:
  names = [*splitter.files, *splitter.optional, *_ALWAYS]
  return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _special_tokens(fields: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
  """Return the texts of special tokens by name, and of those without names."""
  if 'additional_special_tokens' in fields and 'extra_special_tokens' not in fields:
    fields['extra_special_tokens'] = fields['additional_special_tokens']
  own = {
    n: v
    for n, v in fields.items()
    if n.endswith('_token') and n not in NAMED and isinstance(v, (str, AddedToken))
  }
  named = (
    {name: fields.get(name) for name in NAMED}
    | own
    | (fields.get('model_specific_special_tokens') or {})
  )
  texts = {name: str(value) for name, value in named.items() if value is not None}
  return texts, [str(value) for value in fields.get('extra_special_tokens') or []]


def _spaced(parts: list[str], added: dict[str, AddedToken]) -> list[str]:
  """Drop the spaces around added tokens with `lstrip` and `rstrip`; merge `single_word` tokens
  inside a word.
  """
  parts = list(parts)
  for i, part in enumerate(parts):
    token = added.get(part)
    if token is None:
      continue
    left, right = parts[i - 1] if i else '', parts[i + 1] if i + 1 < len(parts) else ''
    if token.rstrip and right:
      parts[i + 1] = right.lstrip()
    if token.lstrip and left:
      parts[i - 1] = left.rstrip()
    if token.single_word and left and left[-1] != ' ':
      parts[i - 1], parts[i] = parts[i - 1] + part, ''
    elif token.single_word and right and right[0] != ' ':
      parts[i + 1], parts[i] = part + parts[i + 1], ''
  return parts
