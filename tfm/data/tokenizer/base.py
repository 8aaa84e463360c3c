"""Tokenizers, which learn a `Vocabulary` from text, and vocabularies."""

import abc
import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
import copy
import dataclasses
import json
from pathlib import Path
import re
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.core.registry import Part
from tfm.data.tokenizer.spelling import spellings

FILE = 'vocabulary.json'
#: Returns the documents of a split, each as parts of its text.
Documents = Callable[[str], Iterable[Iterable[str]]]


@dataclasses.dataclass(frozen=True)
class Tokenizer(Part):
  """The config of a vocabulary."""

  def learn(self, documents: Documents, total: int | None = None) -> 'Vocabulary':
    """Learn a vocabulary from `documents('train')`.

    `documents('val')` only decides whether an unknown token is needed.

    Args:
      documents: Returns the documents of a split.
      total: Bytes of text, for the remaining time. None if unknown.

    Returns:
      The vocabulary.
    """
    raise NotImplementedError

  def fixed(self) -> 'Vocabulary | None':
    """Return the vocabulary if it does not depend on the text, else None."""
    return None

  def identity(self) -> dict[str, Any]:
    """Return JSON that determines the learnt vocabulary, together with the text."""
    return {'tokenizer': self.table().name_of(self), **dataclasses.asdict(self)}


class Vocabulary(abc.ABC):
  """A mapping between text and token ids.

  Ids below `base` come from text. Special tokens follow, and text never encodes to them.
  `with_specials` adds them: 'eos' (end of text, always first), 'pad', 'mask', 'cls', and
  `sentinel_0`, `sentinel_1`, ... which take the last ids in descending order, as in T5.

  Args:
    base: The number of ids of text.
    specials: The ids of special tokens by name.
  """

  kind: ClassVar[str]
  #: Whether prompts get the special tokens of a published tokenizer.
  framed: bool = False

  def __init__(self, base: int, specials: dict[str, int] | None = None):
    self.base = base
    self.specials = dict(specials or {})

  @abc.abstractmethod
  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """Return the ids of each text."""

  @abc.abstractmethod
  def token_bytes(self) -> list[bytes] | None:
    """Return the UTF-8 bytes of each id below `base`, or None if they depend on the context."""

  @abc.abstractmethod
  def state(self) -> dict[str, Any]:
    """Return JSON for `from_state`."""

  @classmethod
  @abc.abstractmethod
  def from_state(cls, state: dict[str, Any]) -> 'Vocabulary':
    """Return the vocabulary of a `state`."""

  def split_point(self, text: str) -> int:
    """Return the last index at which `text` may be split, or 0 if there is none.

    The part after it is encoded by `continuation`. Then the ids of both parts are the ids of the
    whole text, whatever follows.
    """
    del text
    return 0

  @property
  def continuation(self) -> 'Vocabulary':
    """The vocabulary that encodes the text after a `split_point`."""
    return self

  @property
  def size(self) -> int:
    return max([self.base - 1, *self.specials.values()]) + 1

  def encode(self, text: str) -> NDArray[np.int32]:
    return self.encode_batch([text])[0]

  def prompt(self, text: str, framed: bool = True) -> NDArray[np.int32]:
    """Return the ids of a prompt.

    Args:
      text: The text. The spelling of a special token of a published tokenizer becomes that token.
      framed: Add the special tokens that a published tokenizer puts around a prompt. False is for
        text that already has them, such as a rendered chat. Then the spelling of each special token
        becomes that token, also of learnt tokenizers.

    Returns:
      Token ids, int32.
    """
    return self.encode(text) if framed else self._with_added(text, self.encode)

  def prompt_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """Return `prompt(text, framed=False)` for each text."""
    return [self.prompt(text, framed=False) for text in texts]

  @property
  def added_texts(self) -> dict[str, int]:
    """The ids of tfm's special tokens, which follow the ids of text, by their spellings."""
    return {spellings(name)[0]: i for name, i in self.specials.items() if i >= self.base}

  def _with_added(self, text: str, encode: Callable[[str], NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the ids of a text in which the spelling of an added special token is that token."""
    added = self.added_texts
    if not any(spelling in text for spelling in added):
      return encode(text)
    ids = []
    for part in re.split(f'({"|".join(map(re.escape, added))})', text):
      ids.append(np.array([added[part]], np.int32) if part in added else encode(part))
    return np.concatenate(ids)

  def decode(self, ids: Iterable[int]) -> str:
    """Return the text of `ids`.

    Special tokens have no text, and invalid UTF-8 becomes U+FFFD.
    """
    table = self._table
    assert table is not None, f'{type(self).__name__} must override decode'
    return b''.join(table[i] for i in self._checked(ids)).decode('utf-8', 'replace')

  def token_id(self, text: str) -> int | None:
    """Return the id of the token with this spelling, such as a language, or None."""
    del text
    return None

  def unsettled(self, text: str) -> int:
    """Return how many characters at the end of a decoded text may change when more ids follow."""
    del text
    return 0

  def special(self, name: str) -> int:
    assert name in self.specials, f'no special token {name!r}; expected {sorted(self.specials)}'
    return self.specials[name]

  def same(self, other: 'Vocabulary') -> bool:
    """Return whether both vocabularies have the same ids for every text.

    The names of special tokens within their base may differ.
    """
    added = lambda v: {name: i for name, i in v.specials.items() if i >= v.base}
    return (self.kind, added(self), self.state()) == (other.kind, added(other), other.state())

  @property
  def published(self) -> bool:
    """Whether a published model was trained with it, so that the model cannot use added ids."""
    return self.framed

  @property
  def bos(self) -> int | None:
    return self.specials.get('bos')

  @property
  def eos(self) -> int | None:
    return self.specials.get('eos')

  @property
  def pad(self) -> int | None:
    return self.specials.get('pad')

  @property
  def mask(self) -> int | None:
    return self.specials.get('mask')

  @property
  def sentinels(self) -> NDArray[np.int32]:
    """The ids of sentinel_0, sentinel_1, ... in that order."""
    names = sorted((n for n in self.specials if _sentinel(n)), key=_sentinel_number)
    return np.array([self.specials[n] for n in names], np.int32)

  @property
  def is_special(self) -> NDArray[np.bool_]:
    """Which ids have no text, bool [size]."""
    table = np.zeros(self.size, np.bool_)
    table[list(self.specials.values())] = True
    return table

  @property
  def byte_lengths(self) -> NDArray[np.int32] | None:
    """Bytes of text of each id, int32 [size], or None if they depend on the context."""
    if self._table is None:
      return None
    return np.array([len(b) for b in self._table], np.int32)

  def with_specials(self, names: Sequence[str]) -> 'Vocabulary':
    """Return this vocabulary with the special tokens `names`. Existing ones keep their ids."""
    out = copy.copy(self)
    out.specials = dict(self.specials)
    out.__dict__.pop('_bytes', None)
    missing = [n for n in dict.fromkeys(names) if n not in out.specials]
    plain = sorted((n for n in missing if not _sentinel(n)), key=lambda n: n != 'eos')
    sentinels = sorted(filter(_sentinel, missing), key=_sentinel_number, reverse=True)
    for name in plain + sentinels:
      out.specials[name] = out.size
    return out

  def save(self, directory: str | Path) -> None:
    """Write a file that `tokenizer.load(directory)` reads."""
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    content = {'kind': self.kind, 'base': self.base, 'specials': self.specials, **self.state()}
    (path / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1), 'utf-8')

  @property
  def _table(self) -> list[bytes] | None:
    if '_bytes' not in self.__dict__:
      table = self.token_bytes()
      if table is not None:
        table = table + [b''] * (self.size - len(table))
        for i in self.specials.values():
          table[i] = b''
      self._bytes = table
    return self._bytes

  def _checked(self, ids: Iterable[int]) -> Iterator[int]:
    for i in ids:
      if not 0 <= (n := int(i)) < self.size:
        raise UserError(
          f'tokenizer: id {n} is outside the vocabulary of {self.size} tokens. Expected 0 to '
          f'{self.size - 1}.'
        )
      yield n


class StreamDecoder:
  """Decode ids as they arrive. Incomplete characters are held back.

  The concatenated pieces are the decoded text of `context` followed by the ids, minus the text of
  `context`. A space between the last word of a prompt and the first new word is therefore kept.

  Args:
    vocabulary: A vocabulary, or another object with `decode`.
    context: The previous ids, such as those of a prompt. None if they exist but are unknown.

  Example:
    >>> from tfm.data.tokenizer.byte import ByteVocabulary
    >>> stream = StreamDecoder(ByteVocabulary())
    >>> [stream.push(i) for i in 'é!'.encode()] + [stream.flush()]
    ['', 'é', '!', '']
  """

  def __init__(self, vocabulary: Any, context: Iterable[int] | None = ()):
    self._vocabulary = vocabulary
    self._table = vocabulary._table if isinstance(vocabulary, Vocabulary) else None
    self._utf8 = codecs.getincrementaldecoder('utf-8')('replace')
    self._unsettled = vocabulary.unsettled if isinstance(vocabulary, Vocabulary) else lambda text: 0
    if context is None:
      # Any word serves as the context.
      needs_context = isinstance(vocabulary, Vocabulary) and self._table is None
      context = vocabulary.encode('a') if needs_context else ()
    # The ids that the next text may depend on, their text that is already returned, and the number
    # of these ids.
    self._ids, self._shown = self._begin([int(i) for i in context])
    self._done = len(self._ids)

  def push(self, token: int) -> str:
    """Return the text that became final with `token`."""
    if self._table is not None:
      return self._utf8.decode(self._bytes(token))
    return self._grow([int(token)], final=False)

  def flush(self) -> str:
    """Return the remaining text. An incomplete character becomes U+FFFD."""
    if self._table is not None:
      return self._utf8.decode(b'', final=True)
    return self._grow([], final=True)

  def _bytes(self, token: int) -> bytes:
    assert self._table is not None
    known = getattr(self._vocabulary, 'decoding', None) is None or token < len(self._table)
    if not known:
      return b''
    return b''.join(self._table[i] for i in self._vocabulary._checked([token]))

  def _begin(self, context: list[int]) -> tuple[list[int], str]:
    """Return the ids of the context that the first text depends on, and their text."""
    if self._table is not None:
      for token in context[-_CONTEXT[0] :]:
        self._utf8.decode(self._bytes(token))
      return [], ''
    for length in _CONTEXT:
      ids = context[-length:]
      text = self._vocabulary.decode(ids)
      # A context without text, or with half a character, does not determine the next text.
      if text.strip() and '\ufffd' not in text:
        return ids, text
    return context, self._vocabulary.decode(context)

  def _grow(self, tokens: list[int], final: bool) -> str:
    # Spaces of word pieces depend on the previous token, so decode with the last piece as context.
    self._ids += tokens
    text = self._vocabulary.decode(self._ids)
    if not final:
      if text.endswith('\ufffd'):
        return ''
      text = text[: len(text) - self._unsettled(text)]
    new = text[len(self._shown) :]
    if not new:
      return ''
    latest = self._ids[self._done :]
    piece = self._vocabulary.decode(latest)
    if piece.strip() and text.endswith(piece):
      self._ids, self._shown = latest, piece
    else:
      self._shown = text
    self._done = len(self._ids)
    return new


#: The numbers of previous ids that are tried as the context of a stream.
_CONTEXT = (16, 64, 256)


def _sentinel(name: str) -> bool:
  return re.fullmatch(r'sentinel_\d+', name) is not None


def _sentinel_number(name: str) -> int:
  return int(name.removeprefix('sentinel_'))
