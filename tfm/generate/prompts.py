"""Prompts of any lengths as one padded batch, with few distinct shapes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tfm.core import errors
from tfm.generate import prompt_ids
from tfm.generate.options import Options, several
from tfm.generate.penalties import NOTHING
from tfm.model import inputs as inputs_lib
from tfm.model.check_arrays import as_array
from tfm.model.outputs import no_language_model
from tfm.model.spec import MAIN, Model, Tower, blocks
from tfm.parts.embed import ids_in_range

#: Texts, token ids, or the arrays of an encoder by input name (a bare array: its only required
#: input).
Prompts = Sequence[str] | Sequence[Sequence[int]] | Mapping[str, Any] | NDArray[Any]

_TOKEN_OPTIONS = ('logit_bias', 'allowed', 'forced_first', 'forced_last', 'forbidden_first')


class Tokenizer(Protocol):
  """A mapping between text and token ids.

  Three attributes are optional: `eos`, the id that ends a sequence (or None); `size`, the number of
  ids; and `prompt`, a function that encodes prompts in place of `encode`.
  """

  def encode(self, text: str, /) -> Iterable[int]:
    """Return the ids of a text."""
    ...

  def decode(self, ids: list[int], /) -> str:
    """Return the text of ids."""
    ...


@dataclasses.dataclass(frozen=True)
class Batch:
  """The model's inputs for a batch of prompts, and the sizes of the decoding buffers.

  Attributes:
    inputs: The inputs of `tfm.apply` for the first pass.
    slots: Number of cache slots per sequence, for the prompt and the new tokens.
    new_slots: Number of slots for new tokens, `max_new_tokens` rounded up.
    prompt: int32 `[B, S]`, the tokens before the new ones (`NOTHING`: padding).
    eos: The tokens that end a sequence.
    vocab: The number of ids that may be sampled.
  """

  inputs: dict[str, NDArray[Any]]
  slots: int
  new_slots: int
  prompt: NDArray[np.int32]
  eos: tuple[int, ...]
  vocab: int


def bucket(n: int) -> int:
  """Round a length up to 16, 24, 32, 48, 64, 96, ...

  Lengths are rounded up to these sizes, so that few shapes are compiled. At most half is padding.
  """
  size = 16
  while size < n:
    size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
  return size


def batch(spec: Model, prompts: Prompts, tokenizer: Tokenizer | None, options: Options) -> Batch:
  """Return prompts as the model's inputs, padded to bucketed lengths.

  Args:
    spec: A model with a language-model head.
    prompts: Texts, token ids, or arrays of the encoder.
    tokenizer: Encodes texts. None: prompts are token ids or arrays.
    options: The checked options.

  Returns:
    The padded batch. Prompts of a decoder are padded on the left, so that the next token of every
    sequence has the same slot.

  Raises:
    UserError: for a model that cannot decode, or prompts that do not fit the model.
  """
  for why in decoding_problems(spec):
    raise errors.UserError(f'generate: {why}')
  arrays = _arrays(spec, prompts)
  sequences: list[list[int]] = []
  if not arrays:
    listed = prompt_ids.listed(prompts)
    end = source_end(spec, tokenizer) if isinstance(listed[0], str) else ()
    sequences = [[*prompt_ids.encode(i, p, tokenizer), *end] for i, p in enumerate(listed)]
  reader = spec.tower('encoder' if spec.encoder is not None else MAIN)
  for i, sequence in enumerate(sequences):
    _check_ids(reader, sequence, f'prompt {i}')
  eos = several(getattr(tokenizer, 'eos', None) if options.eos is None else options.eos)
  for name in _TOKEN_OPTIONS:
    _check_ids(spec, several(getattr(options, name)), name)
  _check_ids(spec, eos, 'eos')
  vocab = min(spec.vocab, getattr(tokenizer, 'size', spec.vocab))
  if spec.encoder is not None:
    source = arrays or _source(spec.encoder.max_positions, sequences)
    start = _decoder_start(spec, options)
    prompt = np.array([start] * len(next(iter(source.values()))), np.int32)
    length = _slots(spec, len(start), 0, options)
    return Batch(source | {'decoder_input_ids': prompt}, *length, prompt, eos, vocab)
  if options.decoder_start is not None:
    raise errors.UserError(
      f'generate: decoder_start={options.decoder_start} is given, but the model has no encoder. '
      'Expected None.'
    )
  lengths = [len(sequence) for sequence in sequences]
  longest = max(range(len(lengths)), key=lengths.__getitem__)
  slots, new_slots = _slots(spec, lengths[longest], longest, options)
  width = min(bucket(lengths[longest]), slots - options.max_new_tokens)
  tokens_BT, mask_BT = padded(sequences, width, left=True)
  inputs = {'input_ids': tokens_BT, 'attention_mask': mask_BT}
  inputs |= {'prefix_mask': mask_BT} if spec.reads_prefix else {}
  return Batch(inputs, slots, new_slots, np.where(mask_BT == 1, tokens_BT, NOTHING), eos, vocab)


def are_arrays(spec: Model, prompts: Prompts) -> bool:
  """Return whether prompts are arrays: a dict of encoder inputs, or an encoder without tokens."""
  return isinstance(prompts, Mapping) or (
    spec.encoder is not None and not spec.tower('encoder').vocab
  )


def padded(
  sequences: list[list[int]], width: int, left: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
  """Return token ids and attention mask, int32 `[B, width]`, of sequences of any lengths.

  Args:
    sequences: Token ids, at most `width` each.
    width: The padded length.
    left: Whether padding goes before the tokens. False: after them.

  Returns:
    `(tokens, mask)`; the mask is 1 for tokens and 0 for padding.
  """
  tokens_BT, mask_BT = np.zeros((2, len(sequences), width), np.int32)
  for i, sequence in enumerate(sequences):
    place = slice(width - len(sequence), width) if left else slice(0, len(sequence))
    tokens_BT[i, place], mask_BT[i, place] = sequence, 1
  return tokens_BT, mask_BT


def without_padding(tokens: NDArray[np.int32]) -> list[int]:
  """Return the ids of a padded sequence, without `NOTHING`."""
  return [int(token) for token in tokens if token != NOTHING]


def decoding_problems(spec: Model) -> Iterator[str]:
  """Yield a sentence for each reason why a model cannot decode one token at a time."""
  if spec.lm is None:
    yield f'the model {no_language_model(spec)}'
  if any(not (m.causal or 'prefix' in m.reads) for block in blocks(spec) for m in block.mixers):
    yield (
      'some layers attend to later tokens, which do not exist yet. '
      'Expected mask=causal, or mask=prefix without a length.'
    )
  if not spec.apart:
    yield (
      'the experts of a token depend on other tokens, so decoding would differ from a full pass. '
      'Expected a router such as top_k, with capacity=none.'
    )


def _arrays(spec: Model, prompts: Prompts) -> dict[str, NDArray[Any]]:
  """Return encoder inputs that are given as arrays, with one example per prompt; {} for tokens."""
  if not are_arrays(spec, prompts):
    return {}
  if not isinstance(prompts, Mapping):
    required = [name for tower, name in inputs_lib.required(spec) if tower == 'encoder']
    if isinstance(prompts, (str, list, tuple)) or len(required) != 1:
      raise errors.UserError(
        f'generate: prompts is {prompts!r:.60}, but the encoder takes {", ".join(required)}. '
        "Expected a dict of arrays, such as the model's processor returns."
      )
    prompts = {required[0]: prompts}
  if spec.encoder is None:
    raise errors.UserError(
      'generate: prompts is a dict, but the model has no encoder. Expected texts or token ids.'
    )
  given = {name: as_array(name, value) for name, value in prompts.items() if value is not None}
  arrays = {name: np.asarray(value) for name, value in given.items()}
  sizes = {name: (*value.shape, 0)[0] for name, value in arrays.items()}
  if len(set(sizes.values())) != 1 or 0 in sizes.values():
    raise errors.UserError(
      f'generate: prompts has batch sizes {sizes}. Expected arrays of one batch size, at least 1.'
    )
  if 'input_ids' in arrays:
    ids_in_range.check('input_ids', arrays['input_ids'], spec.tower('encoder').vocab, 'token ids')
  return arrays


def _check_ids(spec: Tower, ids: Sequence[int], where: str) -> None:
  for token in ids:
    if not 0 <= token < spec.vocab:
      raise errors.UserError(
        f'generate: {where} has token {token}, outside the vocabulary of {spec.vocab}. '
        f'Expected 0 to {spec.vocab - 1}.'
      )


def _decoder_start(spec: Model, options: Options) -> tuple[int, ...]:
  if options.decoder_start is None:
    raise errors.UserError(
      'generate: decoder_start is missing, but the model is an encoder-decoder. '
      'Expected the id with which its decoder was trained to start (T5: the padding, 0).'
    )
  start = several(options.decoder_start)
  _check_ids(spec, start, 'decoder_start')
  return start


def _slots(spec: Model, length: int, i: int, options: Options) -> tuple[int, int]:
  """Return bucketed (cache slots, slots for new tokens), at most the size of a position table."""
  limit, new = spec.max_positions, options.max_new_tokens
  if limit is not None and length + new > limit:
    where = f'prompt {i}' if spec.encoder is None else 'decoder_start'
    raise errors.UserError(
      f'generate: {where} has {length} tokens and max_new_tokens={new}, in total {length + new}, '
      f'but the position table has {limit} entries. '
      f'Expected max_new_tokens of at most {max(limit - length, 0)}, or a shorter prompt.'
    )
  slots = bucket(bucket(length) + new)
  return slots if limit is None else min(slots, limit), bucket(new)


def source_end(spec: Model, tokenizer: Tokenizer | None) -> tuple[int, ...]:
  """Return the end token of the texts of an encoder, with which tfm trains encoder-decoders.

  Published tokenizers add the special tokens of their prompts.
  """
  learnt = spec.encoder is not None and not getattr(tokenizer, 'published', True)
  return several(getattr(tokenizer, 'eos', None)) if learnt else ()


def _source(limit: int | None, sequences: list[list[int]]) -> dict[str, NDArray[Any]]:
  for i, sequence in enumerate(sequences):
    if limit is not None and len(sequence) > limit:
      raise errors.UserError(
        f"generate: prompt {i} has {len(sequence)} tokens, but the encoder's position table has "
        f'{limit} entries. Expected a shorter prompt.'
      )
  width = bucket(max(map(len, sequences)))
  width = width if limit is None else min(width, limit)
  tokens_BT, mask_BT = padded(sequences, width, left=False)
  return {'input_ids': tokens_BT, 'attention_mask': mask_BT}
