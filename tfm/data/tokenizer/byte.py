"""Byte tokens."""

from collections.abc import Sequence
import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tfm.data.tokenizer.base import Documents, Tokenizer, Vocabulary


class ByteVocabulary(Vocabulary):
  """The 256 bytes of UTF-8."""

  kind: ClassVar[str] = 'byte'

  def __init__(self, specials: dict[str, int] | None = None):
    super().__init__(256, specials)

  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    return [
      np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8).astype(np.int32)
      for text in texts
    ]

  def split_point(self, text: str) -> int:
    return len(text)

  def token_bytes(self) -> list[bytes]:
    return [bytes([i]) for i in range(256)]

  def state(self) -> dict[str, Any]:
    return {}

  @classmethod
  def from_state(cls, state: dict[str, Any]) -> 'ByteVocabulary':
    return cls(state['specials'])


@dataclasses.dataclass(frozen=True)
class Byte(Tokenizer):
  """A tokenizer of 256 byte tokens, without learning."""

  def learn(self, documents: Documents, total: int | None = None) -> ByteVocabulary:
    del documents, total
    return ByteVocabulary()
