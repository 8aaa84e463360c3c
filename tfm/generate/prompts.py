"""Prompts of any lengths as one padded batch whose shape is one of few."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tfm.core import errors
from tfm.generate.options import Options, several
from tfm.generate.penalties import NOTHING
from tfm.model import inputs as inputs_lib
from tfm.model.outputs import no_language_model
from tfm.model.spec import MAIN, Model, Tower, blocks

#: Texts, token ids, or arrays that an encoder reads, by the names of its inputs (a bare array: its
#: only needed input).
Prompts = Sequence[str] | Sequence[Sequence[int]] | Mapping[str, Any] | NDArray[Any]


class Tokenizer(Protocol):
  """Text <-> ids. `eos`, if it is there and not None, ends a row; `size`, if it is there, is the
  number of its ids; `prompt`, if it is there, encodes prompts."""

  def encode(self, text: str, /) -> Iterable[int]:
    """The ids of a text."""
    ...

  def decode(self, ids: list[int], /) -> str:
    """The text of ids."""
    ...


@dataclasses.dataclass(frozen=True)
class Batch:
  """Inputs of `tfm.apply` for the first step, slots of the cache, and room for new tokens.

  `prompt` `[B, S]` is what stands before the new tokens (`NOTHING`: padding), `eos` the tokens that
  end a row, `words` how many of the vocabulary there are."""

  inputs: dict[str, NDArray[Any]]
  slots: int
  room: int
  prompt: NDArray[np.int32]
  eos: tuple[int, ...]
  words: int


def bucket(n: int) -> int:
  """The least of 16, 24, 32, 48, 64, 96, ... that holds n: few shapes to compile for, at most half
  wasted.
  """
  size = 16
  while size < n:
    size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
  return size


def batch(spec: Model, prompts: Prompts, tokenizer: Tokenizer | None, options: Options) -> Batch:
  """The prompts as the model's inputs, in buckets. Raises UserError for what cannot be gone on
  with.
  """
  for why in can_go_on(spec):
    raise errors.UserError(f'generate: {why}')
  arrays = _arrays(spec, prompts)
  rows = [] if arrays else [_encode(i, p, tokenizer) for i, p in enumerate(_listed(prompts))]
  for i, row in enumerate(rows):
    _within(spec.tower('encoder' if spec.encoder is not None else MAIN), row, f'prompt {i}')
  eos = several(getattr(tokenizer, 'eos', None) if options.eos is None else options.eos)
  for what in ('logit_bias', 'allowed', 'forced_first', 'forced_last', 'forbidden_first'):
    _within(spec, several(getattr(options, what)), what)
  _within(spec, eos, 'eos')
  words = min(spec.vocab, getattr(tokenizer, 'size', spec.vocab))
  if spec.encoder is not None:
    source = arrays or _source(spec.encoder.max_positions, rows)
    start = _start(spec, options)
    prompt = np.array([start] * len(next(iter(source.values()))), np.int32)
    length = _fits(spec, len(start), 0, options)
    inputs = source | {'decoder_input_ids': prompt}
    return Batch(inputs, *length, prompt, eos, words)
  if options.decoder_start is not None:
    raise errors.UserError(
      f'generate: decoder_start={options.decoder_start} is given, but the model has no encoder. '
      f'Expected None.'
    )
  lengths = [len(r) for r in rows]
  longest = max(range(len(rows)), key=lengths.__getitem__)
  slots, room = _fits(spec, lengths[longest], longest, options)
  # Padding before the prompt, so that every row's next token takes the same slot.
  width = min(bucket(lengths[longest]), slots - options.max_new_tokens)
  tokens_BT, mask_BT = padded(rows, width, left=True)
  inputs = {'input_ids': tokens_BT, 'attention_mask': mask_BT}
  inputs |= {'prefix_mask': mask_BT} if spec.reads_prefix else {}
  return Batch(inputs, slots, room, np.where(mask_BT == 1, tokens_BT, NOTHING), eos, words)


def are_arrays(spec: Model, prompts: Prompts) -> bool:
  """Return whether prompts are inputs of an encoder by name, or of one that reads no tokens."""
  return isinstance(prompts, Mapping) or (
    spec.encoder is not None and not spec.tower('encoder').vocab
  )


def padded(
  rows: list[list[int]], width: int, left: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
  """(tokens, mask), int32 `[B, width]`: each row at the left or right end, the mask 1 where there
  is one.
  """
  tokens_BT, mask_BT = np.zeros((2, len(rows), width), np.int32)
  for i, row in enumerate(rows):
    place = slice(width - len(row), width) if left else slice(0, len(row))
    tokens_BT[i, place], mask_BT[i, place] = row, 1
  return tokens_BT, mask_BT


def can_go_on(spec: Model) -> Iterator[str]:
  """Yield a sentence for each reason why a model cannot compute a token at a time what it does of a
  whole row.
  """
  if spec.lm is None:
    yield f'the model {no_language_model(spec)}'
  if any(not (m.causal or 'prefix' in m.reads) for block in blocks(spec) for m in block.mixers):
    yield (
      'the model has layers whose tokens see later ones, which are not there yet. '
      'Expected mask=causal, or mask=prefix without a length.'
    )
  if not spec.apart:
    yield (
      'the experts of a token depend on the tokens around it, so a token at a time says not what '
      'the whole row does. '
      'Expected a router such as top_k, with capacity=none.'
    )


def _arrays(spec: Model, prompts: Prompts) -> dict[str, NDArray[Any]]:
  """Return the inputs of an encoder that are given as arrays, with a row per prompt; none if the
  prompts are tokens.
  """
  if not are_arrays(spec, prompts):
    return {}
  if not isinstance(prompts, Mapping):
    needed = [name for tower, name in inputs_lib.needed(spec) if tower == 'encoder']
    if isinstance(prompts, (str, list, tuple)) or len(needed) != 1:
      raise errors.UserError(
        f'generate: prompts is {prompts!r:.60}, and the encoder reads {", ".join(needed)}. '
        "Expected a dict of arrays, such as the model's processor returns."
      )
    prompts = {needed[0]: prompts}
  if spec.encoder is None:
    raise errors.UserError(
      'generate: prompts is a dict, and the model has no encoder. Expected texts or token ids.'
    )
  found = {name: np.asarray(value) for name, value in prompts.items() if value is not None}
  sizes = {name: value.shape[0] if value.ndim else 0 for name, value in found.items()}
  if len(set(sizes.values())) != 1 or 0 in sizes.values():
    raise errors.UserError(
      f'generate: prompts has rows {sizes}. Expected arrays with the same number of rows.'
    )
  return found


def _listed(prompts: Any) -> list[str | Sequence[int]]:
  if isinstance(prompts, str) or (len(prompts) and isinstance(prompts[0], (int, np.integer))):
    raise errors.UserError(
      f'generate: prompts is a single prompt, {prompts!r:.60}. Expected a list of them.'
    )
  if not len(prompts):
    raise errors.UserError('generate: prompts is empty. Expected at least one.')
  return list(prompts)


def _encode(i: int, prompt: str | Sequence[int], tokenizer: Tokenizer | None) -> list[int]:
  if isinstance(prompt, str):
    if tokenizer is None:
      raise errors.UserError(
        f'generate: prompt {i} is text, {prompt!r:.60}, but there is no tokenizer. Expected '
        f'tokenizer=, or token ids.'
      )
    if any(0xD800 <= ord(character) < 0xE000 for character in prompt):
      raise errors.UserError(
        f'generate: prompt {i} has half of a surrogate pair ({prompt!r:.60}). Expected whole text.'
      )
    prompt = list(getattr(tokenizer, 'prompt', tokenizer.encode)(prompt))
  if not len(prompt):
    raise errors.UserError(
      f'generate: prompt {i} is empty. Expected at least one token to go on from.'
    )
  return [int(t) for t in prompt]


def _within(spec: Tower, row: Sequence[int], what: str) -> None:
  for token in row:
    if not 0 <= token < spec.vocab:
      raise errors.UserError(
        f'generate: {what} has token {token}, outside the vocabulary of {spec.vocab}. Expected 0 '
        f'to {spec.vocab - 1}.'
      )


def _start(spec: Model, options: Options) -> tuple[int, ...]:
  if options.decoder_start is None:
    raise errors.UserError(
      'generate: decoder_start is missing: the model reads prompts in its encoder. '
      'Expected the id its decoder was trained to begin with (T5: the padding, 0).'
    )
  start = several(options.decoder_start)
  _within(spec, start, 'decoder_start')
  return start


def _fits(spec: Model, length: int, i: int, options: Options) -> tuple[int, int]:
  """(cache slots, room for new tokens) in buckets, never more than the rows of the position table."""
  limit, new = spec.max_positions, options.max_new_tokens
  if limit is not None and length + new > limit:
    what = f'prompt {i}' if spec.encoder is None else 'decoder_start'
    raise errors.UserError(
      f'generate: {what} has {length} tokens, and {new} new ones make {length + new}, but the '
      f'position table has '
      f'{limit} rows. Expected max_new_tokens of at most {max(limit - length, 0)}, or a shorter '
      f'prompt.'
    )
  slots = bucket(bucket(length) + new)
  return slots if limit is None else min(slots, limit), bucket(new)


def _source(limit: int | None, rows: list[list[int]]) -> dict[str, NDArray[Any]]:
  for i, row in enumerate(rows):
    if limit is not None and len(row) > limit:
      raise errors.UserError(
        f"generate: prompt {i} has {len(row)} tokens, but the encoder's position table has {limit} "
        f'rows.'
      )
  width = bucket(max(map(len, rows)))
  tokens_BT, mask_BT = padded(rows, width if limit is None else min(width, limit), left=False)
  return {'input_ids': tokens_BT, 'attention_mask': mask_BT}
