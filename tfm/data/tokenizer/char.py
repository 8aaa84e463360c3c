"""Character tokens, as in nanoGPT's character models."""

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.progress import Progress
from tfm.data.tokenizer.base import Documents, Tokenizer, Vocabulary

UNKNOWN = '�'


class CharVocabulary(Vocabulary):
  """Characters in code point order.

  Args:
    characters: The characters.
    unknown: Add an id (U+FFFD) for all other characters.
    specials: The ids of special tokens by name.
  """

  kind: ClassVar[str] = 'char'

  def __init__(self, characters: str, unknown: bool, specials: dict[str, int] | None = None):
    super().__init__(len(characters) + unknown, specials)
    self.characters, self.unknown = characters, unknown
    points = _points(characters)
    self._lookup = np.full(points.max(initial=0) + 2, -1, np.int32)
    self._lookup[points] = np.arange(len(points))

  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    return [self._encode(text) for text in texts]

  def _encode(self, text: str) -> NDArray[np.int32]:
    ids = self._lookup[np.minimum(_points(text), len(self._lookup) - 1)]
    if (bad := ids < 0).any():
      if not self.unknown:
        at = int(bad.argmax())
        raise UserError(
          f'tokenizer: character {text[at]!r} (in {text[max(0, at - 10) : at + 10]!r}) is not '
          f'among the {len(self.characters)} characters of the training text. Expected text '
          f'without it, or a model trained with tokenizer=byte or bpe.'
        )
      ids = np.where(bad, len(self.characters), ids).astype(np.int32)
    return ids

  def split_point(self, text: str) -> int:
    return len(text)

  def token_bytes(self) -> list[bytes]:
    return [c.encode('utf-8', 'surrogatepass') for c in self.characters + UNKNOWN * self.unknown]

  def state(self) -> dict[str, Any]:
    return {'characters': [ord(c) for c in self.characters], 'unknown': self.unknown}

  @classmethod
  def from_state(cls, state: dict[str, Any]) -> 'CharVocabulary':
    return cls(''.join(map(chr, state['characters'])), state['unknown'], state['specials'])


@dataclasses.dataclass(frozen=True)
class Char(Tokenizer):
  """The characters of the training text.

  There is an unknown-character token only if the validation text needs it.
  """

  def learn(self, documents: Documents, total: int | None = None) -> CharVocabulary:
    known: set[str] = set()
    with Progress('reading for the vocabulary', total) as progress:
      for part in itertools.chain.from_iterable(documents('train')):
        known.update(part)
        progress.advance(len(part.encode('utf-8', 'surrogatepass')))
    val = itertools.chain.from_iterable(documents('val'))
    unknown = any(not known.issuperset(part) for part in val)
    return CharVocabulary(''.join(sorted(known)), unknown)


def _points(text: str) -> NDArray[np.uint32]:
  return np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32)
