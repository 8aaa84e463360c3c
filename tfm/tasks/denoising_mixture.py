"""A mixture of denoisers: span corruption of several kinds, each with a mode token."""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tfm.data import stateless_rng
from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.textdata import TextData
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.span_corruption import (
  Corrupted,
  Group,
  SpanCorruption,
  corrupt,
  encoder_decoder,
  encoder_decoder_specs,
)
from tfm.tasks.text import TextTask, one_document, text_specs, with_head


@dataclasses.dataclass(frozen=True)
class Denoiser:
  """One kind of span corruption.

  Attributes:
    rate: The share of the text that is removed.
    span: The mean length of a span in tokens. None removes the end of the text as one span.
    mode: The mode token before the inputs.
    weight: The share of the examples, in any unit.
  """

  rate: float = 0.15
  span: float | None = 3.0
  mode: Literal['nlu', 's2s', 'nlg'] = 'nlu'
  weight: float = 1.0

  def counts(self, raw: int) -> tuple[int, int]:
    """Return the numbers of removed tokens and of spans, for `raw` tokens."""
    # A single span always ends the text, because spans come after kept parts.
    return SpanCorruption(rate=self.rate, span=self.span or raw).counts(raw)

  def encoded(self, raw: int) -> tuple[int, int]:
    """Return the lengths of inputs and targets, for `raw` tokens.

    They include the mode token, the sentinels and the end tokens.
    """
    noise, spans = self.counts(raw)
    return 1 + raw - noise + spans + 1, noise + spans + 1

  def check(self) -> Iterator[str]:
    if not 0 < self.rate < 1:
      yield f'rate: is {self.rate}. Expected a share between 0 and 1.'
    if self.span is not None and self.span < 1:
      yield f'span: is {self.span}. Expected a mean length of 1 or more, or none.'
    if not self.weight > 0:
      yield f'weight: is {self.weight}. Expected a positive number.'


#: UL2's denoisers: regular, sequential, and extreme by rate or by length.
UL2 = (
  Denoiser(0.15, 3.0),
  Denoiser(0.15, 8.0),
  Denoiser(0.25, None, 's2s'),
  Denoiser(0.5, 3.0, 'nlg'),
  Denoiser(0.5, 8.0, 'nlg'),
  Denoiser(0.15, 64.0, 'nlg'),
  Denoiser(0.5, 64.0, 'nlg'),
)


@dataclasses.dataclass(frozen=True)
class DenoisingMixture(TextTask):
  """Mixture of denoisers (UL2, arXiv:2205.05131) for encoder-decoders and prefix decoders.

  Each example draws one denoiser, and its inputs begin with a mode token. Inputs and targets are
  those of `span_corruption`. All denoisers read raw sequences of the same length, which is the
  longest that fits for each of them. Shorter inputs and targets are padded: 81% of 512 inputs and
  54% of 380 targets are no padding. Joined sequences have `length` tokens, or up to two fewer.

  Attributes:
    denoisers: The denoisers. The default is UL2's seven, in equal shares.
    joined: Whether inputs and targets are one sequence, for models without an encoder. The inputs
      are a bidirectional prefix with mask=prefix. Only the targets are predicted.
  """

  denoisers: tuple[Denoiser, ...] = UL2
  joined: bool = False

  def window(self, length: int) -> int:
    raw = 2
    while self._fits(raw + 1, length):
      raw += 1
    return raw

  def longest(self, raw: int) -> tuple[int, int, int]:
    """Return the longest inputs, targets, and inputs with targets, for `raw` tokens."""
    pairs = [denoiser.encoded(raw) for denoiser in self.denoisers]
    inputs, targets = (max(lengths) for lengths in zip(*pairs, strict=True))
    return inputs, targets, max(map(sum, pairs))

  def lengths(self, length: int) -> tuple[int, ...]:
    inputs, targets, both = self.longest(self.window(length))
    return (both - 1,) if self.joined else (inputs, targets)

  def _fits(self, raw: int, length: int) -> bool:
    """Return whether `raw` tokens fit a sequence of `length` tokens for each denoiser."""
    inputs, _, both = self.longest(raw)
    # The last token of a joined sequence is only a label.
    return both <= length + 1 if self.joined else inputs <= length

  def specials(self, length: int) -> tuple[str, ...]:
    raw = self.window(length)
    spans = max(denoiser.counts(raw)[1] for denoiser in self.denoisers)
    modes = dict.fromkeys(denoiser.mode for denoiser in self.denoisers)
    return ('eos', 'pad', *modes, *(f'sentinel_{i}' for i in range(spans)))

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    vocabulary, n = dataset.vocabulary, raw['tokens'].shape[1]
    size, drawn = (raw['segments'] > 0).sum(1), self.draw(raw['key'])
    groups = []
    for number, tokens in np.unique(np.stack([drawn, size])[:, size > 1], axis=1).T.tolist():
      denoiser = self.denoisers[number]
      rows = (drawn == number) & (size == tokens)
      noise, spans = denoiser.counts(tokens)
      groups.append(Group(rows, tokens, noise, spans, (vocabulary.special(denoiser.mode),)))
    inputs, targets, both = self.longest(n)
    corrupted = corrupt(raw, vocabulary, (inputs, targets), groups)
    if self.joined:
      return _joined(corrupted, both, vocabulary.special('pad'))
    return encoder_decoder(corrupted, vocabulary)

  def draw(self, key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the number of the denoiser of each example, int64 [b]."""
    shares = np.cumsum([denoiser.weight for denoiser in self.denoisers])
    draws = stateless_rng.uniform(key, 'denoiser', 1)[:, 0] * shares[-1]
    return np.minimum(np.searchsorted(shares, draws, 'right'), len(shares) - 1)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    assert isinstance(data, TextData)
    lengths = self.lengths(data.length)
    if self.joined:
      return text_specs(data.batch, lengths[0], 'input_ids', 'labels', 'prefix_mask')
    return encoder_decoder_specs(data.batch, lengths)

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from with_head('denoising_mixture', model)
    if self.joined == (model.encoder is not None):
      kind = 'an encoder' if self.joined else 'no encoder'
      yield f'task.joined: is {self.joined}, but the model has {kind}. Expected {not self.joined}.'
    elif model.ahead if self.joined else not model.causal:
      yield (
        'task: denoising_mixture needs a decoder that is causal in the targets, but a mask or a '
        'router of the model leaks later tokens, which are its labels. Expected mask=causal and '
        'router=top_k, or mask=prefix with joined=True.'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from super().fits_data(data)
    if not isinstance(data, TextData):
      return
    yield from one_document(data, 'denoising_mixture cannot isolate the documents of a sequence')
    if not self._fits(2, data.length):
      yield (
        f'data.length: is {data.length}, too short for two tokens, a mode token, a sentinel and '
        'an end token. Expected 4 or more, or 6 if joined.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.denoisers:
      yield 'denoisers: is empty. Expected one or more.'


def _joined(corrupted: Corrupted, length: int, pad: int) -> Features:
  """Return inputs and targets as one sequence, with a loss on the targets only.

  Args:
    corrupted: The inputs and targets.
    length: Tokens of the longest sequence, with the last label.
    pad: The padding token.

  Returns:
    `input_ids`, `labels`, `prefix_mask` and `weights`, [b, length - 1].
  """
  inputs, targets = corrupted.input_size[:, None], corrupted.target_size[:, None]
  at = np.arange(length)[None]
  of_target = np.clip(at - inputs, 0, corrupted.targets.shape[1] - 1)
  of_input = np.minimum(at, corrupted.inputs.shape[1] - 1)
  first = np.take_along_axis(corrupted.inputs, np.broadcast_to(of_input, (len(inputs), length)), 1)
  second = np.take_along_axis(corrupted.targets, of_target, 1)
  tokens = np.where(at < inputs, first, np.where(at < inputs + targets, second, pad))
  tokens = tokens.astype(np.int32)
  predicts = (at >= inputs - 1) & (at < inputs + targets - 1) & (inputs > 0)
  return {
    'input_ids': tokens[:, :-1],
    'labels': tokens[:, 1:],
    'prefix_mask': (at < inputs).astype(np.int32)[:, :-1],
    'weights': predicts.astype(np.float32)[:, :-1],
  }
