"""Log-probabilities of given texts, and the most probable of several choices."""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.core import errors
from tfm.generate import prompt_ids
from tfm.generate.options import several
from tfm.generate.prompts import Tokenizer, bucket, padded, source_end
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.model.transformer import apply
from tfm.parts.context import Run

#: How the log-probabilities of choices are divided before they are compared.
NORMALISE = ('none', 'tokens', 'bytes')


class Likelihood(NamedTuple):
  """The probability of a continuation.

  Attributes:
    log_prob: The sum of log p over its tokens, in nats.
    greedy: Whether each of its tokens has the largest probability.
  """

  log_prob: float
  greedy: bool


class Ranked(NamedTuple):
  """The choices of one prompt.

  Attributes:
    log_probs: The log-probability of each choice, in nats.
    scores: The same after normalisation.
    best: The index of the choice with the highest score; the first of equal ones.
  """

  log_probs: list[float]
  scores: list[float]
  best: int


def rank(
  spec: Model,
  params: Params,
  prompts: Sequence[str] | Sequence[Sequence[int]],
  choices: Sequence[Sequence[Any]],
  tokenizer: Tokenizer | None = None,
  normalise: str = 'none',
  *,
  batch: int = 16,
  decoder_start: int | Sequence[int] | None = None,
  run: Run = Run(),
) -> list[Ranked]:
  """Return the log-probability of each choice after its prompt, and the best choice.

  A choice is written directly after its prompt, so it starts with a space if a word does. If
  tokens of the prompt change with the choice, they count as part of the choice.

  Args:
    spec: A model with a language-model head.
    params: Its parameters, not prepared.
    prompts: Texts or token ids. An encoder-decoder reads them in its encoder.
    choices: The choices of each prompt, as texts or token ids.
    tokenizer: Encodes texts.
    normalise: 'none' compares log-probabilities, 'tokens' divides them by the number of tokens, and
      'bytes' by the number of bytes of the text.
    batch: Sequences in each forward pass.
    decoder_start: The id or ids with which the decoder of an encoder-decoder starts.
    run: Kernels, precision and loop.

  Returns:
    The choices of each prompt, in the same order.

  Raises:
    UserError: Choices are missing or empty, bytes of token ids are needed, or as `log_likelihoods`.

  Example:
    `tfm.generate.rank(m.spec, m.params, ['2 + 2 ='], [[' 4', ' 5']], m.tokenizer)[0].best`
  """
  if normalise not in NORMALISE:
    raise errors.UserError(f'rank: {errors.unknown("normalise", normalise, NORMALISE)}')
  prompts = prompt_ids.listed(prompts)
  if len(choices) != len(prompts) or not all(map(len, choices)):
    raise errors.UserError(
      f'rank: {len(choices)} lists of choices for {len(prompts)} prompts. Expected a list of at '
      'least one choice for each prompt.'
    )
  pairs, divisors = [], []
  for i, (prompt, listed) in enumerate(zip(prompts, choices, strict=True)):
    for choice in listed:
      context, continuation = _pair(spec, i, prompt, choice, tokenizer)
      pairs.append((context, continuation))
      divisors.append(_divisor(normalise, choice, continuation))
  found = log_likelihoods(spec, params, pairs, batch=batch, decoder_start=decoder_start, run=run)
  ranked, at = [], 0
  for listed in choices:
    here = slice(at, at + len(listed))
    log_probs = [likelihood.log_prob for likelihood in found[here]]
    scores = [x / n for x, n in zip(log_probs, divisors[here], strict=True)]
    ranked.append(Ranked(log_probs, scores, int(np.argmax(scores))))
    at += len(listed)
  return ranked


def log_likelihoods(
  spec: Model,
  params: Params,
  pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
  *,
  batch: int = 16,
  decoder_start: int | Sequence[int] | None = None,
  run: Run = Run(),
) -> list[Likelihood]:
  """Return the log-probability of each continuation after its context.

  Args:
    spec: A causal decoder, a prefix LM or an encoder-decoder.
    params: Its parameters, not prepared.
    pairs: Token ids of contexts and continuations, at least one each. The context is the prefix of
      a prefix LM and the encoder input of an encoder-decoder.
    batch: Sequences in each forward pass. Sequences of similar lengths share one.
    decoder_start: The id or ids with which the decoder of an encoder-decoder starts.
    run: Kernels, precision and loop.

  Returns:
    A likelihood for each pair.

  Raises:
    UserError: A sequence is empty or exceeds the position table, or the decoder start is missing.
  """
  _check(spec, pairs, decoder_start)
  start = several(decoder_start)
  lengths = [len(context) + len(continuation) for context, continuation in pairs]
  order = sorted(range(len(pairs)), key=lengths.__getitem__, reverse=True)
  found = [Likelihood(0.0, False)] * len(pairs)
  for first in range(0, len(order), batch):
    rows = order[first : first + batch]
    # The last batch repeats a sequence, so that one compiled function serves all batches.
    full = rows + rows[-1:] * (batch - len(rows))
    inputs, labels_BT, weights_BT = _arrays(spec, [pairs[row] for row in full], start)
    log_prob_B, greedy_B = jax.device_get(
      _score(spec, params, inputs, labels_BT, weights_BT, run=run)
    )
    for row, log_prob, greedy in zip(rows, log_prob_B, greedy_B, strict=False):
      found[row] = Likelihood(float(log_prob), bool(greedy))
  return found


@functools.partial(jax.jit, static_argnames=('spec', 'run'))
def _score(
  spec: Model,
  params: Params,
  inputs: dict[str, Any],
  labels_BT: jax.Array,
  weights_BT: jax.Array,
  *,
  run: Run,
) -> tuple[jax.Array, jax.Array]:
  """Return the log-probability [B] of the labels with weight 1, and whether all are greedy [B]."""
  logits_BTV = apply(spec, params, run=run, **inputs)['logits'].astype(jnp.float32)
  log_p_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), labels_BT[..., None], -1)[..., 0]
  is_top_BT = jnp.argmax(logits_BTV, -1) == labels_BT
  counted_BT = weights_BT > 0
  return (
    jnp.sum(jnp.where(counted_BT, log_p_BT, 0.0), 1),
    jnp.all(is_top_BT | ~counted_BT, 1),
  )


def _arrays(
  spec: Model, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], start: tuple[int, ...]
) -> tuple[dict[str, NDArray[np.int32]], NDArray[np.int32], NDArray[np.int32]]:
  """Return the inputs of `apply`, the next token of each position, and its weight."""
  if spec.encoder is not None:
    sources = [list(context) for context, _ in pairs]
    width = _width(max(map(len, sources)), spec.encoder.max_positions)
    source_BT, mask_BT = padded(sources, width, left=False)
    inputs = {'input_ids': source_BT, 'attention_mask': mask_BT}
    pairs, name = [(start, continuation) for _, continuation in pairs], 'decoder_input_ids'
  else:
    inputs, name = {}, 'input_ids'
  rows = [[*context, *continuation] for context, continuation in pairs]
  width = _width(max(map(len, rows)) - 1, spec.max_positions)
  tokens_BT, mask_BT = padded([row[:-1] for row in rows], width, left=False)
  labels_BT, _ = padded([row[1:] for row in rows], width, left=False)
  weights_BT, prefix_BT = np.zeros((2, *tokens_BT.shape), np.int32)
  for i, (context, continuation) in enumerate(pairs):
    n = len(context)
    weights_BT[i, n - 1 : n - 1 + len(continuation)] = 1
    prefix_BT[i, :n] = 1
  inputs[name] = tokens_BT
  if spec.encoder is None:
    inputs['attention_mask'] = mask_BT
  if spec.reads_prefix:
    inputs['prefix_mask'] = prefix_BT
  return inputs, labels_BT, weights_BT


def _width(length: int, limit: int | None) -> int:
  return bucket(length) if limit is None else min(bucket(length), limit)


def _pair(
  spec: Model, i: int, prompt: Any, choice: Any, tokenizer: Tokenizer | None
) -> tuple[list[int], list[int]]:
  """Return the token ids of a prompt and of a choice after it."""
  context = prompt_ids.encode(i, prompt, tokenizer)
  if not isinstance(choice, str):
    return context, prompt_ids.encode(i, choice, None)
  if not isinstance(prompt, str) or tokenizer is None:
    raise errors.UserError(
      f'rank: choice {choice!r:.60} is text, but prompt {i} has token ids. Expected texts and a '
      'tokenizer, or token ids.'
    )
  if spec.encoder is not None:
    return [*context, *source_end(spec, tokenizer)], [*map(int, tokenizer.encode(choice))]
  plain, whole = ([*map(int, tokenizer.encode(text))] for text in (prompt, prompt + choice))
  same = 0
  while same < min(len(plain), len(whole)) and plain[same] == whole[same]:
    same += 1
  changed = len(plain) - same
  return context[: len(context) - changed] if changed else context, whole[same:]


def _divisor(normalise: str, choice: Any, continuation: Sequence[int]) -> float:
  if normalise == 'none':
    return 1.0
  if normalise == 'tokens':
    return float(len(continuation))
  if not isinstance(choice, str):
    raise errors.UserError(
      "rank: normalise='bytes' needs texts, but a choice has token ids. Expected 'tokens'."
    )
  return float(len(choice.encode()))


def _check(
  spec: Model,
  pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
  decoder_start: int | Sequence[int] | None,
) -> None:
  if spec.encoder is not None and not several(decoder_start):
    raise errors.UserError(
      'likelihood: decoder_start is missing, but the model is an encoder-decoder. Expected the id '
      'with which its decoder was trained to start.'
    )
  for i, (context, continuation) in enumerate(pairs):
    if not len(context) or not len(continuation):
      raise errors.UserError(
        f'likelihood: sequence {i} has {len(context)} + {len(continuation)} tokens. Expected a '
        'context and a continuation of at least one token.'
      )
    lengths = [(len(context) + len(continuation) - 1, spec.max_positions)]
    if spec.encoder is not None:
      before = len(several(decoder_start)) - 1
      lengths = [
        (len(context), spec.encoder.max_positions),
        (before + len(continuation), spec.max_positions),
      ]
    for length, limit in lengths:
      if limit is not None and length > limit:
        raise errors.UserError(
          f'likelihood: sequence {i} has {length} tokens, but the position table has {limit} '
          'entries. Expected a shorter text.'
        )
