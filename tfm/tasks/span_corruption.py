"""Span corruption: restore spans that were replaced by sentinels."""

from collections.abc import Iterable, Iterator
import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.data import stateless_rng
from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Vocabulary
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, one_document, text_specs, with_head


@dataclasses.dataclass(frozen=True)
class SpanCorruption(TextTask):
  """Span corruption (T5, arXiv:1910.10683, section 3.1.4) for encoder-decoder models.

  The encoder reads the text, with a sentinel in place of each span. The decoder predicts sentinel,
  span, sentinel, span, ... and an end token. There is no closing sentinel, as in T5's code, unlike
  the figure of the paper. `window(length)` raw tokens become exactly `length` encoder inputs.

  Attributes:
    rate: The share of the text that is removed.
    span: The mean length of a span in tokens.
  """

  rate: float = 0.15
  span: float = 3.0

  def counts(self, raw: int) -> tuple[int, int]:
    """Return the numbers of removed tokens and of spans, for `raw` tokens."""
    noise = min(max(round(raw * self.rate), 1), raw - 1)
    return noise, min(max(1, round(noise / self.span)), noise, raw - noise)

  def encoded(self, raw: int) -> tuple[int, int]:
    """Return the lengths of inputs and targets, for `raw` tokens.

    They include the sentinels and the end token.
    """
    noise, spans = self.counts(raw)
    return raw - noise + spans + 1, noise + spans + 1

  def window(self, length: int) -> int:
    raw = 2
    while self.encoded(raw + 1)[0] <= length:
      raw += 1
    # At rate 1/2, two raw lengths give `length` inputs. Like T5, choose the smaller if its targets
    # have `length` tokens as well.
    inputs, targets = self.encoded(raw)
    shorter = raw > 2 and self.encoded(raw - 1) == (inputs, inputs)
    return raw - 1 if targets > inputs and shorter else raw

  def lengths(self, length: int) -> tuple[int, ...]:
    return length, self.encoded(self.window(length))[1]

  def specials(self, length: int) -> tuple[str, ...]:
    spans = self.counts(self.window(length))[1]
    return ('eos', 'pad', *(f'sentinel_{i}' for i in range(spans)))

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    size = (raw['segments'] > 0).sum(1)
    # Only the last sequence of an evaluation is shorter, so there are one to three groups.
    groups = [Group(size == n, n, *self.counts(n)) for n in np.unique(size[size > 1]).tolist()]
    shape = self.encoded(raw['tokens'].shape[1])
    return encoder_decoder(corrupt(raw, dataset.vocabulary, shape, groups), dataset.vocabulary)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    assert isinstance(data, TextData)
    return encoder_decoder_specs(data.batch, self.lengths(data.length))

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from with_head('span_corruption', model)
    if model.encoder is None:
      yield (
        'task: span_corruption needs an encoder-decoder, and the model has no encoder. Expected '
        'task=causal_lm, prefix_lm or masked_lm, or an encoder-decoder.'
      )
    elif not model.causal:
      yield (
        'task: span_corruption needs a causal decoder, or later tokens leak, which are its labels. '
        'Expected mask=causal for the decoder.'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from super().fits_data(data)
    if not isinstance(data, TextData):
      return
    yield from one_document(data, 'span_corruption cannot isolate the documents of a sequence')
    if data.length < 4:
      yield (
        f'data.length: is {data.length}, too short for two tokens, a sentinel and an end token. '
        'Expected 4 or more.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 < self.rate < 1:
      yield f'rate: is {self.rate}. Expected a share between 0 and 1.'
    if self.span < 1:
      yield f'span: is {self.span}. Expected a mean length of 1 or more.'


class Group(NamedTuple):
  """Sequences of a batch with the same counts.

  Attributes:
    rows: Which sequences, bool [b].
    size: The tokens of a sequence.
    noise: The number of removed tokens.
    spans: The number of removed spans.
    begin: Ids before the inputs.
  """

  rows: NDArray[np.bool_]
  size: int
  noise: int
  spans: int
  begin: tuple[int, ...] = ()


class Corrupted(NamedTuple):
  """Inputs and targets, padded to fixed lengths.

  Attributes:
    inputs: Text with a sentinel for each span, and an end token, int32 [b, i].
    targets: Sentinels, each with its span, and an end token, int32 [b, t].
    input_size: Tokens of each input, int64 [b].
    target_size: Tokens of each target, int64 [b].
  """

  inputs: NDArray[np.int32]
  targets: NDArray[np.int32]
  input_size: NDArray[np.int64]
  target_size: NDArray[np.int64]


def corrupt(
  raw: RawBatch, vocabulary: Vocabulary, shape: tuple[int, int], groups: Iterable[Group]
) -> Corrupted:
  """Replace random spans of text by sentinels.

  Args:
    raw: The sequences.
    vocabulary: The vocabulary, with 'eos', 'pad' and the sentinels.
    shape: The lengths of inputs and targets.
    groups: The sequences to corrupt. The others are all padding.

  Returns:
    The inputs and targets.
  """
  tokens, pad = raw['tokens'], vocabulary.special('pad')
  inputs, targets = (np.full((len(tokens), n), pad, np.int32) for n in shape)
  sizes = np.zeros((2, len(tokens)), np.int64)
  for rows, size, noise, spans, begin in groups:
    a, b = _removed(tokens[rows, :size], raw['key'][rows], vocabulary, noise, spans)
    first = np.broadcast_to(np.array(begin, np.int32), (len(a), len(begin)))
    a = np.concatenate([first, a], 1)
    inputs[rows, : a.shape[1]], targets[rows, : b.shape[1]] = a, b
    sizes[:, rows] = np.array([[a.shape[1]], [b.shape[1]]])
  return Corrupted(inputs, targets, *sizes)


def encoder_decoder(corrupted: Corrupted, vocabulary: Vocabulary) -> Features:
  """Return the features of an encoder-decoder, which starts with the padding token."""
  inputs, targets = corrupted.inputs, corrupted.targets
  inside = np.arange(inputs.shape[1]) < corrupted.input_size[:, None]
  predicted = np.arange(targets.shape[1]) < corrupted.target_size[:, None]
  start = np.full((len(targets), 1), vocabulary.special('pad'), np.int32)
  return {
    'input_ids': inputs,
    'segment_ids': inside.astype(np.int32),
    'decoder_input_ids': np.concatenate([start, targets[:, :-1]], 1),
    'decoder_segment_ids': predicted.astype(np.int32),
    'labels': targets,
    'weights': predicted.astype(np.float32),
  }


def encoder_decoder_specs(batch: int, lengths: tuple[int, ...]) -> dict[str, ArraySpec]:
  """Return the arrays of `encoder_decoder`, for the lengths of encoder and decoder."""
  encoder, decoder = lengths
  names = 'decoder_input_ids', 'decoder_segment_ids', 'labels'
  return text_specs(batch, encoder, 'input_ids', 'segment_ids') | text_specs(batch, decoder, *names)


def _removed(
  tokens: NDArray[np.int32],
  key: NDArray[np.uint64],
  vocabulary: Vocabulary,
  noise: int,
  spans: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
  """Return the inputs and targets of sequences of one length, with end tokens."""
  b, n = tokens.shape
  kept_parts = parts(key, 'kept', n - noise, spans)
  noise_parts = parts(key, 'noise', noise, spans)
  bounds = np.cumsum(np.stack([kept_parts, noise_parts], 2).reshape(b, -1), 1)
  # The number of the part that a token is in: even parts are kept, odd parts are removed.
  part = (np.arange(n)[None, :, None] >= bounds[:, None, :-1]).sum(2)
  removed = part % 2 == 1
  starts = removed & ~np.pad(removed, ((0, 0), (1, 0)))[:, :-1]
  sentinel = vocabulary.sentinels[np.minimum(part // 2, spans - 1)]
  eos = np.full((b, 1), vocabulary.special('eos'), np.int32)
  inputs = np.where(removed, sentinel, tokens)[~removed | starts].reshape(b, -1)
  targets = np.stack([sentinel, tokens], 2)[np.stack([starts, removed], 2)].reshape(b, -1)
  return np.concatenate([inputs, eos], 1), np.concatenate([targets, eos], 1)


def parts(key_B: NDArray[np.uint64], stream: str, n: int, k: int) -> NDArray[np.int64]:
  """Split `n` tokens into `k` positive parts, with all splits equally likely.

  Args:
    key_B: The random key of each sequence.
    stream: Name of the random stream.
    n: The number of tokens.
    k: The number of parts.

  Returns:
    The size of each part, int64 [B, k].
  """
  cuts = np.argsort(stateless_rng.uniform(key_B, stream, n - 1), 1)[:, : k - 1] + 1
  ends = np.full((len(key_B), 1), n)
  return np.diff(np.concatenate([np.zeros_like(ends), np.sort(cuts, 1), ends], 1), axis=1)
