"""The vocabulary of tokenizers that `transformers` implements in Python."""

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

from tfm.data.tokenizer.base import Vocabulary
from tfm.data.tokenizer.decoding import clean, uncleaned
from tfm.data.tokenizer.limits import check_ids, reported
from tfm.data.tokenizer.published import byte_text, japanese, prophetnet, sentences, words
from tfm.data.tokenizer.published.folder import CONFIG, NAMED, read_fields
from tfm.data.tokenizer.published.splitter import Splitter

#: class -> its splitter.
SPLITTERS: dict[str, type[Splitter]] = {
  **byte_text.SPLITTERS,
  **japanese.SPLITTERS,
  **prophetnet.SPLITTERS,
  **sentences.SPLITTERS,
  **words.SPLITTERS,
}
_ALWAYS = (CONFIG, 'special_tokens_map.json', 'added_tokens.json')


class SlowVocabulary(Vocabulary):
  """A vocabulary over a `Splitter`.

  Special and added tokens are matched in a text first, and the splitter gets the rest.

  Args:
    name: The class of the tokenizer.
    folder: The folder of its files, which the vocabulary keeps.
    framed: Prompts get the special tokens of the class.
    settings: Override the settings of the folder.
    specials: The ids of special tokens by name.
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
    # The special tokens of GPT-SW3 depend on the name of the folder.
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
    check_ids(str(folder), [*known, *self.splitter.vocab().values()])
    super().__init__(max(known) + 1, specials if specials is not None else self._special_ids())
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

  def _special_ids(self) -> dict[str, int]:
    named = [name for name in NAMED if name in self._named]
    return {name.removesuffix('_token'): self._id(self._named[name]) for name in named}

  def _id(self, token: str) -> int:
    return self._number[token] if token in self._number else self.splitter.number(token)

  @functools.cached_property
  def _pattern(self) -> re.Pattern[str]:
    texts = {text for text in [*self._words, *self._special] if text}
    if not texts:
      return re.compile('(?!)')
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile('(' + '|'.join(map(re.escape, longest_first)) + ')')

  def _tokens(self, text: str) -> list[str]:
    """Return the tokens of a text, with special tokens."""
    special = frozenset(self._special)
    parts = [part for part in self._pattern.split(self.splitter.prepare(text)) if part]
    parts = _spaced(parts, {token.content: token for token in self._added.values()})
    tokens: list[str] = []
    for part in filter(None, parts):
      tokens += [part] if part in self._number or part in special else self.splitter.split(part)
    return self.splitter.tidy(tokens, special)

  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    with reported('tokenizer: cannot encode a text'):
      return [np.array(self._plain(text), np.int32) for text in texts]

  def _plain(self, text: str) -> list[int]:
    """Return the ids of a text, with special tokens as ordinary text."""
    unknown = self._id(self.splitter.unknown)
    ids = (self.splitter.number(t) for t in self.splitter.split(self.splitter.prepare(text)))
    replaced = dict.fromkeys(self.special_numbers, unknown)
    return [replaced.get(i, i) for i in ids]

  def prompt(self, text: str, framed: bool = True) -> NDArray[np.int32]:
    with reported('tokenizer: cannot encode a text'):
      if self._literal:
        tokens = self.splitter.literal(text, frozenset(self._special))
      else:
        tokens = self._tokens(text)
      ids = [self._id(token) for token in tokens]
      if framed and self.framed:
        named = {name: self._id(token) for name, token in self._named.items()}
        ids = self.splitter.frame(ids, named)
      return np.array(ids, np.int32)

  def decode(self, ids: Iterable[int]) -> str:
    skipped = {*self.special_numbers, *self.specials.values()}
    kept = [i for i in map(int, ids) if i not in skipped and 0 <= i < self.base]
    text = self.splitter.join([self._token(i) for i in kept], frozenset(self._special))
    return clean(text) if self._clean else text

  def _token(self, number: int) -> str:
    added = self._added.get(number)
    return self.splitter.token(number) if added is None else added.content

  def token_id(self, text: str) -> int | None:
    number, unknown = self._id(text), self.splitter.unknown
    return None if number == self._id(unknown) and text != unknown else number

  def unsettled(self, text: str) -> int:
    mark = self.splitter.mark
    marked = len(mark) if mark and text.endswith(mark) else 0
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
  """Return the vocabulary of a folder.

  Args:
    folder: The folder.
    name: The class of its tokenizer.
    framed: Prompts get the special tokens of the class.
    settings: Override the settings of the folder.

  Returns:
    The vocabulary, or None if files are missing.

  Raises:
    UserError: The files cannot be read.
  """
  needed = SPLITTERS[name].files
  if not all((folder / file).is_file() for file in needed):
    return None
  with reported(f'{folder}: its tokenizer ({name}) cannot be read'):
    return SlowVocabulary(name, folder, framed, settings)


def _contents(folder: Path, splitter: type[Splitter]) -> dict[str, bytes]:
  names = [*splitter.files, *splitter.optional, *_ALWAYS]
  return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _special_tokens(fields: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
  """Return the texts of special tokens by name, and the texts without names."""
  if 'additional_special_tokens' in fields and 'extra_special_tokens' not in fields:
    fields['extra_special_tokens'] = fields['additional_special_tokens']
  named = {name: fields.get(name) for name in NAMED}
  for name, value in fields.items():
    if name.endswith('_token') and name not in NAMED and isinstance(value, (str, AddedToken)):
      named[name] = value
  named |= fields.get('model_specific_special_tokens') or {}
  texts = {name: str(value) for name, value in named.items() if value is not None}
  return texts, [str(value) for value in fields.get('extra_special_tokens') or []]


def _spaced(parts: list[str], added: dict[str, AddedToken]) -> list[str]:
  """Apply the flags of added tokens to the parts of a text.

  `lstrip` and `rstrip` drop spaces around a token. A `single_word` token inside a word is merged
  with the word.
  """
  parts = list(parts)
  for i, part in enumerate(parts):
    token = added.get(part)
    if token is None:
      continue
    left = parts[i - 1] if i else ''
    right = parts[i + 1] if i + 1 < len(parts) else ''
    if token.rstrip and right:
      parts[i + 1] = right.lstrip()
    if token.lstrip and left:
      parts[i - 1] = left.rstrip()
    if token.single_word and left and left[-1] != ' ':
      parts[i - 1], parts[i] = parts[i - 1] + part, ''
    elif token.single_word and right and right[0] != ' ':
      parts[i + 1], parts[i] = part + parts[i + 1], ''
  return parts
