"""Fill in spans that were taken out, each by one sentinel (T5, Raffel et al. 2019, section 3.1.4)."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.data import stateless_rng
from tfm.data.base import Data
from tfm.data.corpus import RawBatch
from tfm.data.dataset import ArraySpec
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Vocabulary
from tfm.tasks.base import Features
from tfm.tasks.text import TextTask, text_specs, with_head


@dataclasses.dataclass(frozen=True)
class SpanCorruption(TextTask):
  """-log p(the spans | the text with a sentinel for each): a share `rate` of the text, in spans of
  mean length `span`.

  The encoder reads exactly `length` tokens, made of `window(length)` raw ones; targets are
  sentinel, span, sentinel, span, ... and an end of text, with no closing sentinel (T5's code; the
  figure of its paper shows one)."""

  rate: float = 0.15
  span: float = 3.0

  def counts(self, raw: int) -> tuple[int, int]:
    """How many of `raw` tokens are taken out, and in how many spans."""
    noise = min(max(round(raw * self.rate), 1), raw - 1)
    return noise, min(max(1, round(noise / self.span)), noise, raw - noise)

  def encoded(self, raw: int) -> tuple[int, int]:
    """Tokens of inputs and of targets that `raw` tokens become, sentinels and end of text included."""
    noise, spans = self.counts(raw)
    return raw - noise + spans + 1, noise + spans + 1

  def window(self, length: int) -> int:
    raw = 2
    while self.encoded(raw + 1)[0] <= length:
      raw += 1
    # At rate 1/2 two raw lengths give `length` inputs; T5 takes the one whose targets are no longer
    # than that.
    inputs, targets = self.encoded(raw)
    shorter = raw > 2 and self.encoded(raw - 1) == (inputs, inputs)
    return raw - 1 if targets > inputs and shorter else raw

  def lengths(self, length: int) -> tuple[int, ...]:
    return length, self.encoded(self.window(length))[1]

  def specials(self, length: int) -> tuple[str, ...]:
    spans = self.counts(self.window(length))[1]
    return ('eos', 'pad', *(f'sentinel_{i}' for i in range(spans)))

  def features(self, raw: RawBatch, dataset: Any) -> Features:
    vocabulary = dataset.vocabulary
    tokens, size = raw['tokens'], (raw['segments'] > 0).sum(1)
    shape = self.encoded(tokens.shape[1])
    inputs, targets = (
      np.full((len(tokens), n), vocabulary.special('pad'), np.int32) for n in shape
    )
    ends = np.zeros((2, len(tokens)), np.int64)
    # All rows are full but the last of an evaluation, so this is one pass over the batch, at most
    # three.
    for n in np.unique(size[size > 1]).tolist():
      mine = size == n
      a, b = self._corrupt(tokens[mine, :n], raw['key'][mine], vocabulary)
      inputs[mine, : a.shape[1]], targets[mine, : b.shape[1]] = a, b
      ends[:, mine] = np.array([[a.shape[1]], [b.shape[1]]])
    inside, predicted = (
      np.arange(width) < end[:, None] for width, end in zip(shape, ends, strict=True)
    )
    start = np.full((len(tokens), 1), vocabulary.special('pad'), np.int32)
    return {
      'input_ids': inputs,
      'segment_ids': inside.astype(np.int32),
      'decoder_input_ids': np.concatenate([start, targets[:, :-1]], 1),
      'decoder_segment_ids': predicted.astype(np.int32),
      'labels': targets,
      'weights': predicted.astype(np.float32),
    }

  def specs(self, model: Any, data: Any) -> dict[str, ArraySpec]:
    encoder, decoder = self.lengths(data.length)
    source = text_specs(data.batch, encoder, 'input_ids', 'segment_ids')
    return source | text_specs(
      data.batch, decoder, 'decoder_input_ids', 'decoder_segment_ids', 'labels'
    )

  def _corrupt(
    self, tokens: NDArray, key: NDArray, vocabulary: Vocabulary
  ) -> tuple[NDArray, NDArray]:
    """Inputs and targets of rows of one length, end of text included."""
    b, n = tokens.shape
    noise, spans = self.counts(n)
    kept_parts, noise_parts = (
      parts(key, 'kept', n - noise, spans),
      parts(key, 'noise', noise, spans),
    )
    bounds = np.cumsum(np.stack([kept_parts, noise_parts], 2).reshape(b, -1), 1)
    # The number of the part a token is in: even ones are kept, odd ones taken out.
    part = (np.arange(n)[None, :, None] >= bounds[:, None, :-1]).sum(2)
    taken = part % 2 == 1
    starts = taken & ~np.pad(taken, ((0, 0), (1, 0)))[:, :-1]
    sentinel = vocabulary.sentinels[np.minimum(part // 2, spans - 1)]
    eos = np.full((b, 1), vocabulary.special('eos'), np.int32)
    inputs = np.where(taken, sentinel, tokens)[~taken | starts].reshape(b, -1)
    targets = np.stack([sentinel, tokens], 2)[np.stack([starts, taken], 2)].reshape(b, -1)
    return np.concatenate([inputs, eos], 1), np.concatenate([targets, eos], 1)

  def fits(self, model: Any) -> Iterator[str]:
    yield from with_head('span_corruption', model)
    if model.encoder is None:
      yield (
        'task: span_corruption trains an encoder with a decoder, and the model is one stack. '
        'Choose task=causal_lm, prefix_lm or masked_lm, or an encoder-decoder.'
      )
    elif not model.causal:
      yield 'task: span_corruption would show the decoder its labels: choose mask=causal for the decoder.'

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from super().fits_data(data)
    if not isinstance(data, TextData):
      return
    if data.isolate:
      yield 'data.isolate: span_corruption takes spans out of whole rows and cannot keep documents apart. Set it False.'
    if data.length < 4:
      yield f'data.length: is {data.length}. span_corruption needs 4: a token, a sentinel, an end, and room.'

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 < self.rate < 1:
      yield f'rate: is {self.rate}. A share between 0 and 1 was wanted.'
    if self.span < 1:
      yield f'span: is {self.span}. A mean length of at least 1 was wanted.'


def parts(key_B: NDArray[np.uint64], stream: str, n: int, k: int) -> NDArray[np.int64]:
  """int64 [b, k]: `n` cut into `k` positive parts, every way equally likely."""
  cuts = np.argsort(stateless_rng.uniform(key_B, stream, n - 1), 1)[:, : k - 1] + 1
  ends = np.full((len(key_B), 1), n)
  return np.diff(np.concatenate([np.zeros_like(ends), np.sort(cuts, 1), ends], 1), axis=1)
