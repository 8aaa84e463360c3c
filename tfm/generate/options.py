"""What a user may ask of `generate`, as one checked value."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.generate.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Options(Sampling):
  """How far to go on, and how tokens are drawn (see `Sampling`).

  A row ends with the first token of `stop` (an id or several; None is the tokenizer's end of text, if it has one), but
  not before `min_new_tokens`. `decoder_start` is what the decoder of an encoder-decoder begins with.
  """

  max_new_tokens: int = 64
  min_new_tokens: int = 0
  stop: int | tuple[int, ...] | None = None
  decoder_start: int | tuple[int, ...] | None = None

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.max_new_tokens < 1:
      yield f'max_new_tokens={self.max_new_tokens} asks for nothing. Wanted at least 1.'
    elif not 0 <= self.min_new_tokens <= self.max_new_tokens:
      yield f'min_new_tokens={self.min_new_tokens} is not between 0 and max_new_tokens={self.max_new_tokens}.'
    if self.decoder_start == ():
      yield 'decoder_start=() gives the decoder nothing to begin with. Wanted at least one token id.'


def parse(given: dict[str, Any]) -> Options:
  """The checked options of these keywords. Raises UserError with everything that is wrong with them."""
  known = [f.name for f in dataclasses.fields(Options)]
  for name in given:
    if name not in known:
      raise errors.UserError(f'generate: {errors.unknown("option", name, known)}')
  options = Options(**given)
  if wrong := list(options.check()):
    raise errors.UserError(f'generate: {" ".join(wrong)}')
  return options


def ids(value: int | tuple[int, ...] | None) -> tuple[int, ...]:
  """One id, several or none, as a tuple."""
  if value is None:
    return ()
  return tuple(value) if isinstance(value, (tuple, list)) else (value,)
