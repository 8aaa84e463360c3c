"""The base of tokenizers that `transformers` implements in Python."""

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken


class Splitter(abc.ABC):
  """A tokenizer class that `transformers` implements in Python.

  Attributes:
    files: The names of the files it needs.
    optional: The names of files it may have.
    tokens: Default special tokens and settings.
    unknown: The special token for unknown text.
    mark: The end of a token that the next token continues.
    language: The setting for the language of a text, or ''.
    pieces: Whether added tokens that are pieces of the model have the ids of the pieces.
  """

  files: ClassVar[tuple[str, ...]] = ()
  optional: ClassVar[tuple[str, ...]] = ()
  tokens: ClassVar[Mapping[str, Any]] = {}
  mark: ClassVar[str] = ''
  language: ClassVar[str] = ''
  pieces: ClassVar[bool] = False

  def __init__(self, folder: Path, fields: dict[str, Any]):
    self.fields = fields
    self.unknown = str(fields['unk_token'])

  @abc.abstractmethod
  def vocab(self) -> dict[str, int]:
    """Return the ids of its tokens, without added tokens."""

  def size(self) -> int:
    """Return the number of ids, without added tokens."""
    return max(self.vocab().values()) + 1

  def first_new(self, added: Mapping[int, AddedToken]) -> int:
    """Return the id of the next added token."""
    return len({*self.vocab(), *(token.content for token in added.values())})

  def prepare(self, text: str) -> str:
    """Return the form of a text in which special tokens are matched."""
    return text

  @abc.abstractmethod
  def split(self, text: str) -> list[str]:
    """Return the tokens of a text without special tokens."""

  def literal(self, text: str, special: frozenset[str]) -> list[str]:
    """Return the tokens of a text with special tokens as text (`split_special_tokens`)."""
    del special
    return self.split(self.prepare(text))

  def tidy(self, tokens: list[str], special: frozenset[str]) -> list[str]:
    """Post-process the tokens of a whole text, given the special tokens."""
    del special
    return tokens

  @abc.abstractmethod
  def number(self, token: str) -> int:
    """Return the id of a token."""

  @abc.abstractmethod
  def token(self, number: int) -> str:
    """Return the token of an id."""

  @abc.abstractmethod
  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    """Return the text of tokens, given the special tokens."""

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    """Add special tokens around ids, given the ids of special tokens by name."""
    del named
    return ids

  def added(self) -> dict[int, AddedToken]:
    """Return the tokens that the class adds, by id."""
    return {}

  def whole(self) -> Sequence[str]:
    """Return ordinary tokens that are matched anywhere in a text."""
    return ()

  def mend(self, added: dict[int, AddedToken]) -> None:  # noqa: B027 (most classes have nothing to drop)
    """Drop tokens that were added under wrong ids."""


def end(ids: list[int], named: Mapping[str, int]) -> list[int]:
  """Append the end token, unless the ids already end with it."""
  eos = named['eos_token']
  return ids if ids and ids[-1] == eos else [*ids, eos]
