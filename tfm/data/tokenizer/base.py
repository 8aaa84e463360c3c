"""What a tokenizer is: a spec that learns a `Vocabulary` from text, and the vocabulary that a
checkpoint carries.
"""

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

FILE = 'vocabulary.json'
#: The documents of a split, each in parts of its text that are cut anywhere.
Documents = Callable[[str], Iterable[Iterable[str]]]


@dataclasses.dataclass(frozen=True)
class Tokenizer(Part):
  """The recipe of a vocabulary."""

  def learn(self, documents: Documents, total: int | None = None) -> 'Vocabulary':
    """The vocabulary of `documents('train')`; `documents('val')` may only say whether an unknown
    token is needed.

    `total` (bytes of text, if known) is for the time that is left.
    """
    raise NotImplementedError

  def given(self) -> 'Vocabulary | None':
    """Return the vocabulary if it does not depend on the text, else None."""
    return None

  def identity(self) -> dict[str, Any]:
    """What the learnt vocabulary depends on besides the text."""
    return {'tokenizer': self.table().name_of(self), **dataclasses.asdict(self)}


class Vocabulary(abc.ABC):
  """Text <-> ids. Ids below `base` come from text; specials stand after them, and text never
  encodes to one.

  Specials exist only when asked for by `with_specials`: 'eos' (end of text, always first), 'pad',
  'mask', and `sentinel_0`, `sentinel_1`, ... which take the last ids, downwards, as in T5."""

  kind: ClassVar[str]
  #: Whether prompts get the special tokens around them that a published tokenizer has.
  framed: bool = False

  def __init__(self, base: int, specials: dict[str, int] | None = None):
    self.base = base
    self.specials = dict(specials or {})

  @abc.abstractmethod
  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """The ids of each text."""

  @abc.abstractmethod
  def token_bytes(self) -> list[bytes] | None:
    """The UTF-8 bytes each id below `base` stands for, or None if that is not knowable an id at a
    time.
    """

  @abc.abstractmethod
  def state(self) -> dict[str, Any]:
    """JSON from which `from_state` makes this vocabulary again."""

  @classmethod
  @abc.abstractmethod
  def from_state(cls, state: dict[str, Any]) -> 'Vocabulary':
    """The vocabulary that `state` describes."""

  def cut(self, text: str) -> int:
    """The last place where `text` may be cut in two that are encoded apart, whatever follows; 0 if
    it knows none.

    The second is encoded by `onward`; the ids of both together are those of the whole.
    """
    del text
    return 0

  @property
  def onward(self) -> 'Vocabulary':
    """What encodes text that goes on from a `cut`."""
    return self

  @property
  def size(self) -> int:
    return max([self.base - 1, *self.specials.values()]) + 1

  def encode(self, text: str) -> NDArray[np.int32]:
    return self.encode_batch([text])[0]

  def prompt(self, text: str, framed: bool = True) -> NDArray[np.int32]:
    """Return the ids of a text that a model is asked.

    Args:
      text: The text. Special tokens of a published tokenizer that it spells are those tokens.
      framed: Put the special tokens around it that a published tokenizer puts there.
    """
    del framed
    return self.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of `ids`; specials stand for none, bytes that are no UTF-8 become U+FFFD."""
    table = self._table
    assert table is not None, f'{type(self).__name__} must decode by itself'
    return b''.join(table[i] for i in self._checked(ids)).decode('utf-8', 'replace')

  def token_id(self, text: str) -> int | None:
    """Return the id of the token that is spelt so, such as that of a language; None if there is
    none.
    """
    del text
    return None

  def unsettled(self, text: str) -> int:
    """Return how many characters at the end of a decoded text may change when more ids follow."""
    del text
    return 0

  def special(self, name: str) -> int:
    assert name in self.specials, f'{name!r} was not asked for; specials: {sorted(self.specials)}'
    return self.specials[name]

  def same(self, other: 'Vocabulary') -> bool:
    """Return whether both have the same ids for every text. Roles of their own tokens may differ."""
    added = lambda v: {name: i for name, i in v.specials.items() if i >= v.base}
    return (self.kind, added(self), self.state()) == (other.kind, added(other), other.state())

  @property
  def published(self) -> bool:
    """Whether a model was trained with it elsewhere, so that ids added to it mean nothing to that
    model.
    """
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
    """Ids of sentinel_0, sentinel_1, ... in that order."""
    names = sorted((n for n in self.specials if _sentinel(n)), key=_sentinel_number)
    return np.array([self.specials[n] for n in names], np.int32)

  @property
  def is_special(self) -> NDArray[np.bool_]:
    """bool[size]: ids that stand for no text."""
    table = np.zeros(self.size, np.bool_)
    table[list(self.specials.values())] = True
    return table

  @property
  def byte_lengths(self) -> NDArray[np.int32] | None:
    """int32[size]: bytes of text an id stands for, or None if that is not knowable an id at a time."""
    table = self._table
    return None if table is None else np.array([len(b) for b in table], np.int32)

  def with_specials(self, names: Sequence[str]) -> 'Vocabulary':
    """This vocabulary with the specials `names` after it; those already there stay where they are."""
    out = copy.copy(self)
    out.specials = dict(self.specials)
    out.__dict__.pop('_bytes', None)
    missing = [n for n in dict.fromkeys(names) if n not in out.specials]
    plain = sorted((n for n in missing if not _sentinel(n)), key=lambda n: n != 'eos')
    for name in plain + sorted(
      (n for n in missing if _sentinel(n)), key=_sentinel_number, reverse=True
    ):
      out.specials[name] = out.size
    return out

  def save(self, directory: str | Path) -> None:
    """Writes what `tokenizer.load(directory)` reads."""
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
        raise UserError(f'tokenizer: id {n} is outside the vocabulary of {self.size} tokens.')
      yield n


class StreamDecoder:
  """Text as ids arrive: half a character is held back until the rest of it is here.

  The pieces together are the text of the context and the ids less that of the context alone: a
  space between the last word of a prompt and the first new one is kept.

  Args:
    vocabulary: A vocabulary, or anything else that can `decode` ids.
    context: The ids before, such as those of a prompt; None if they are not known, but there are
    some.

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
    # All ids that the next piece of text may depend on, how many of them are shown, and their text.
    if context is None:
      # Any word will do.
      context = (
        vocabulary.encode('a') if isinstance(vocabulary, Vocabulary) and self._table is None else ()
      )
    self._ids, self._shown = self._begin([int(i) for i in context])
    self._done = len(self._ids)

  def push(self, token: int) -> str:
    """Return the text that became certain with `token`."""
    if self._table is not None:
      return self._utf8.decode(self._bytes(token))
    return self._grow([int(token)], final=False)

  def flush(self) -> str:
    """Return what is left at the end; an unfinished character becomes U+FFFD."""
    return (
      self._utf8.decode(b'', final=True) if self._table is not None else self._grow([], final=True)
    )

  def _bytes(self, token: int) -> bytes:
    assert self._table is not None
    known = getattr(self._vocabulary, 'decoding', None) is None or token < len(self._table)
    return b''.join(self._table[i] for i in self._vocabulary._checked([token])) if known else b''

  def _begin(self, context: list[int]) -> tuple[list[int], str]:
    """Return the ids before the stream that its first text depends on, and their text."""
    if self._table is not None:
      for token in context[-_CONTEXT[0] :]:
        self._utf8.decode(self._bytes(token))
      return [], ''
    for length in _CONTEXT:
      ids = context[-length:]
      text = self._vocabulary.decode(ids)
      # A context that is cut within a character, or has no text, tells nothing of what follows.
      if text.strip() and '\ufffd' not in text:
        return ids, text
    return context, self._vocabulary.decode(context)

  def _grow(self, tokens: list[int], final: bool) -> str:
    # Spaces of word-piece vocabularies depend on the token before: decode with the last piece as
    # context.
    self._ids += tokens
    text = self._vocabulary.decode(self._ids)
    if not final:
      if text.endswith('\ufffd'):
        return ''
      text = text[: len(text) - self._unsettled(text)]
    new = text[len(self._shown) :]
    if not new:
      return ''
    last = self._ids[self._done :]
    piece = self._vocabulary.decode(last)
    if piece.strip() and text.endswith(piece):
      self._ids, self._shown = last, piece
    else:
      self._shown = text
    self._done = len(self._ids)
    return new


#: How many ids before a stream are tried as its context.
_CONTEXT = (16, 64, 256)


def _sentinel(name: str) -> bool:
  return re.fullmatch(r'sentinel_\d+', name) is not None


def _sentinel_number(name: str) -> int:
  return int(name.removeprefix('sentinel_'))
