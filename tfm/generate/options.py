"""What a user may ask of `generate`, as one checked value."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import math
from typing import Any

from tfm.core import errors
from tfm.generate.penalties import Penalties
from tfm.generate.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Options(Sampling, Penalties):
  """How far to go on, and how tokens are priced (see `Penalties`) and drawn (see `Sampling`).

  A row ends with the first token of `eos` (an id or several; None is the tokenizer's end of text,
  if it has one), but not before `min_new_tokens`. It ends too with the token that completes a text
  of `stop` (one or several), wherever in its tokens that text begins. `decoder_start` is what the
  decoder of an encoder-decoder begins with. `forced_first` is every row's first new token (the
  language to translate to), `forced_last` the last one of rows that have gone on for
  `max_new_tokens`. `forbidden_first` are ids that are not chosen as the first new token.
  `draft_tokens` are guessed before each pass of the model, where there is a draft.

  `beams` > 1 searches for the text whose log p / length ** `length_penalty` is highest (above 0:
  longer texts), among so many at each length. `early_stopping` ends a prompt's search: True, once
  as many have ended; False, once no open one would count more than the worst of them if it ended
  now; 'never', if it ended at its longest.

  `prefill_chunk` reads prompts so many tokens at a time, in memory that does not grow with them.
  `prompt_cache` names a file that keeps what is cached of the first prompt, or has kept it: then
  only what is new of a prompt is read (an encoder reads it all or nothing, and a ring goes on from
  no prompt that leaves the file's before its margin)."""

  max_new_tokens: int = 64
  min_new_tokens: int = 0
  eos: int | Sequence[int] | None = None
  stop: str | Sequence[str] = ()
  decoder_start: int | Sequence[int] | None = None
  forced_first: int | None = None
  forced_last: int | None = None
  forbidden_first: Sequence[int] = ()
  draft_tokens: int = 4
  beams: int = 1
  length_penalty: float = 1.0
  early_stopping: bool | str = False
  prefill_chunk: int | None = None
  prompt_cache: str | None = None

  def check(self) -> Iterator[str]:
    yield from Sampling.check(self)
    yield from Penalties.check(self)
    if self.max_new_tokens < 1:
      yield f'max_new_tokens={self.max_new_tokens} asks for nothing. Expected at least 1.'
    elif not 0 <= self.min_new_tokens <= self.max_new_tokens:
      yield f'min_new_tokens={self.min_new_tokens} is not between 0 and max_new_tokens={self.max_new_tokens}.'
    if self.decoder_start == ():
      yield 'decoder_start=() gives the decoder nothing to begin with. Expected at least one token id.'
    if self.draft_tokens < 1:
      yield f'draft_tokens={self.draft_tokens} guesses nothing. Expected at least 1.'
    yield from self._beams()
    if self.prefill_chunk is not None and self.prefill_chunk < 1:
      yield f'prefill_chunk={self.prefill_chunk} reads nothing. Expected at least 1, or None for the whole prompt.'
    for text in several(self.stop):
      if not isinstance(text, str):
        yield f'stop={text!r} is no text to end a row before. Expected a string or several; ids that end a row are eos.'
      elif not text:
        yield "stop='' is in every text. Expected at least one character."

  def _beams(self) -> Iterator[str]:
    if self.beams < 1:
      yield f'beams={self.beams} searches nothing. Expected at least 1.'
    if self.early_stopping not in (True, False, 'never'):
      yield f"early_stopping={self.early_stopping!r} is not one of True, False, 'never'."
    if not math.isfinite(self.length_penalty):
      yield f'length_penalty={self.length_penalty} is no power. Expected a number: 0 for the sum, 1 for the mean.'
    if self.beams > 1 and self.temperature:
      yield f'beams={self.beams} seek the likeliest text, temperature={self.temperature} draws. Expected temperature=0.'


def parse(given: dict[str, Any]) -> Options:
  """The checked options of these keywords. Raises UserError with everything that is wrong with
  them.
  """
  known = [f.name for f in dataclasses.fields(Options)]
  for name in given:
    if name not in known:
      raise errors.UserError(f'generate: {errors.unknown("option", name, known)}')
  options = Options(**given)
  if wrong := list(options.check()):
    raise errors.UserError(f'generate: {" ".join(wrong)}')
  return options


def several(value: Any) -> tuple[Any, ...]:
  """One, several or None, as a tuple."""
  if value is None:
    return ()
  return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
