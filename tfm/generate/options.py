"""The options of `generate`, as one checked dataclass."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import math
from typing import Any

from tfm.core import errors
from tfm.generate import option_types
from tfm.generate.penalties import Penalties
from tfm.generate.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Options(Sampling, Penalties):
  """Options of `generate`: length, stopping, beams, prompts, sampling and penalties.

  Attributes:
    max_new_tokens: The most tokens to generate per prompt.
    min_new_tokens: The number of tokens before which `eos` is not sampled.
    eos: The id or ids that end a sequence. None: the tokenizer's end of text, if it has one.
    stop: One or more texts that end a sequence. They may start and end inside tokens.
    decoder_start: The id or ids with which the decoder of an encoder-decoder starts.
    forced_first: The first new token of every sequence (the language to translate to).
    forced_last: The last token of sequences that reach `max_new_tokens`.
    forbidden_first: Ids that are not sampled as the first new token.
    draft_tokens: The number of tokens that a draft proposes before each pass of the model.
    beams: Number of beams. Above 1, beam search maximises log p / length ** `length_penalty`.
    length_penalty: The exponent of that length. Above 0 favours longer texts.
    early_stopping: When the search of a prompt ends. True: as soon as `beams` texts have finished.
      False: once no running beam would score higher if it finished now. 'never': once none could
      score higher at `max_new_tokens`.
    prefill_chunk: The number of prompt tokens per forward pass, which bounds the memory of long
      prompts. None: all of them.
    prompt_cache: A file for the cache of the first prompt. Later calls compute only the tokens
      after the common prefix. An encoder-decoder reuses all or nothing. A ring cache needs a common
      prefix that ends within its margin.
  """

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
      yield f'max_new_tokens={self.max_new_tokens} is too small. Expected at least 1.'
    elif not 0 <= self.min_new_tokens <= self.max_new_tokens:
      yield (
        f'min_new_tokens={self.min_new_tokens} is out of range. '
        f'Expected 0 to max_new_tokens={self.max_new_tokens}.'
      )
    if self.decoder_start == ():
      yield 'decoder_start=() is empty. Expected at least one token id.'
    if self.draft_tokens < 1:
      yield f'draft_tokens={self.draft_tokens} is too small. Expected at least 1.'
    yield from self._beams()
    if self.prefill_chunk is not None and self.prefill_chunk < 1:
      yield (
        f'prefill_chunk={self.prefill_chunk} is too small. '
        'Expected at least 1, or None for the whole prompt.'
      )
    for text in several(self.stop):
      if not isinstance(text, str):
        yield f'stop={text!r} is not text. Expected one or more strings; use eos for token ids.'
      elif not text:
        yield "stop='' is empty. Expected at least one character."

  def _beams(self) -> Iterator[str]:
    if self.beams < 1:
      yield f'beams={self.beams} is too small. Expected at least 1.'
    if self.early_stopping not in (True, False, 'never'):
      yield f"early_stopping={self.early_stopping!r} is unknown. Expected True, False or 'never'."
    if not math.isfinite(self.length_penalty):
      yield (
        f'length_penalty={self.length_penalty} is not a finite exponent. '
        'Expected a number: 0 for the sum of log p, 1 for the mean.'
      )
    if self.beams > 1 and self.temperature:
      yield (
        f'beams={self.beams} cannot be combined with sampling (temperature={self.temperature}). '
        'Expected temperature=0.'
      )


def parse(given: dict[str, Any]) -> Options:
  """Return the checked options of keyword arguments.

  Raises:
    UserError: for an unknown option, or with all values of a wrong type or out of range.
  """
  known = [f.name for f in dataclasses.fields(Options)]
  for name in given:
    if name not in known:
      raise errors.UserError(f'generate: {errors.unknown("option", name, known)}')
  given = {name: option_types.plain(value) for name, value in given.items()}
  if wrong := list(option_types.type_problems(given)):
    raise errors.UserError(f'generate: {" ".join(wrong)}')
  options = Options(**given)
  if wrong := list(options.check()):
    raise errors.UserError(f'generate: {" ".join(wrong)}')
  return options


def several(value: Any) -> tuple[Any, ...]:
  """Return one value, several or None as a tuple."""
  if value is None:
    return ()
  if isinstance(value, str) or not isinstance(value, Iterable):
    return (value,)
  return tuple(value)
