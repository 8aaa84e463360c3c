"""Sequence to sequence: write the target of each source."""

from collections.abc import Iterator
import dataclasses

import numpy as np
from numpy.typing import NDArray

from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.framing import Framing, prompt_frame
from tfm.data.pairs import PairCorpus, Pairs
from tfm.data.tokenizer import Vocabulary
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, text_specs, with_head


@dataclasses.dataclass(frozen=True)
class Seq2Seq(TextTask):
  """Cross-entropy of the target, given the source, for `data=pairs`.

  An encoder reads the source and an end token. The decoder starts with the padding token and
  predicts the target and an end token (arXiv:1706.03762, arXiv:1910.10683). A published tokenizer
  adds the special tokens of its prompts to both. With `data.packing=best_fit`, a row has several
  pairs, which cannot attend to each other.

  A decoder without an encoder reads source, separator, target and end token in one sequence of
  `length + target_length` tokens. Only the target and its end have a loss. The source is a
  bidirectional prefix for a model with mask=prefix. Pairs are not packed.

  Attributes:
    joined: Whether source and target are one sequence, for models without an encoder.
    separator: The text between source and target of a joined sequence. Empty is a special token.
    start: The id with which the decoder starts. Defaults to the padding token.
  """

  joined: bool = False
  separator: str = ''
  start: int | None = None

  def lengths(self, length: int) -> tuple[int, ...]:
    return (2 * length,) if self.joined else (length, length)

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    assert isinstance(data, Pairs)
    return (sum(data.windows),) if self.joined else data.windows

  def specials(self, length: int) -> tuple[str, ...]:
    del length
    if not self.joined:
      return ('eos', 'pad')
    return ('eos',) if self.separator else ('eos', 'sep')

  def frames(self, vocabulary: Vocabulary) -> tuple[Framing, Framing]:
    """Return the special tokens around sources and around targets."""
    frame = prompt_frame(vocabulary) if vocabulary.published else Framing()
    end = (vocabulary.special('eos'),)
    if self.joined:
      separator = vocabulary.encode(self.separator) if self.separator else ()
      between = tuple(map(int, separator)) or (vocabulary.special('sep'),)
      return Framing(frame.begin, between), Framing((), end)
    if vocabulary.published:
      return frame, frame
    return Framing((), end), Framing((), end)

  def decoder_start(self, vocabulary: Vocabulary) -> int | None:
    """Return the id with which the decoder starts, None for joined sequences."""
    if self.joined:
      return None
    return vocabulary.special('pad') if self.start is None else self.start

  def prompt(self, vocabulary: Vocabulary, source: str, length: int) -> list[int]:
    """Return the ids that a model reads before it writes the target.

    Args:
      vocabulary: The vocabulary of the model.
      source: The source with its prefix.
      length: The most ids. Longer sources are truncated, as in training.

    Returns:
      Token ids with the special tokens of the source.
    """
    frame, _ = self.frames(vocabulary)
    room = length - len(frame.begin) - len(frame.end)
    return [*frame.begin, *vocabulary.encode(source)[:room].tolist(), *frame.end]

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, PairCorpus)
    if self.joined:
      return _joined(raw)
    vocabulary = dataset.vocabulary
    pad = start = np.int32(vocabulary.special('pad'))
    if self.start is not None:
      start = np.int32(self.start)
    target, segments = raw['target_tokens'], raw['target_segments']
    previous = np.pad(target, ((0, 0), (1, 0)))[:, :-1]
    decoder = np.where(raw['target_positions'] == 0, start, previous)
    out = {
      'input_ids': np.where(raw['segments'] > 0, raw['tokens'], pad),
      'segment_ids': raw['segments'],
      'decoder_input_ids': np.where(segments > 0, decoder, pad),
      'decoder_segment_ids': segments,
      'labels': np.where(segments > 0, target, pad),
      'weights': (segments > 0).astype(np.float32),
    }
    if dataset.packing == 'best_fit':
      out['position_ids'], out['decoder_position_ids'] = raw['positions'], raw['target_positions']
    return out

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    assert isinstance(data, Pairs)
    source, target = data.windows
    if self.joined:
      return text_specs(data.batch, source + target, 'input_ids', 'labels', 'prefix_mask')
    inputs = text_specs(data.batch, source, *_named(data, 'input_ids', 'segment_ids'))
    outputs = _named(data, 'decoder_input_ids', 'decoder_segment_ids')
    return inputs | text_specs(data.batch, target, *outputs, 'labels')

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from with_head('seq2seq', model)
    if model.encoder is not None and self.joined:
      yield 'task.joined: is True, but the model has an encoder. Expected False.'
    elif model.encoder is None and not self.joined:
      yield (
        'task: seq2seq needs an encoder-decoder, and the model has no encoder. Expected '
        'task.joined=True for a decoder, or an encoder-decoder.'
      )
    elif model.ahead if self.joined else not model.causal:
      yield (
        'task: seq2seq needs a decoder that is causal in the target, but a mask or a router of the '
        'model leaks later tokens, which are its labels. Expected mask=causal and router=top_k, '
        'or mask=prefix with joined=True.'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    if not isinstance(data, Pairs):
      yield 'task: seq2seq needs pairs of source and target. Expected data=pairs.'
    elif self.joined and data.packed == 'best_fit':
      yield (
        'data.packing: is best_fit, but joined sequences are not packed. Expected none, or an '
        'encoder-decoder with joined=False.'
      )

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    assert isinstance(dataset, Corpus)
    yield from super().suits(model, dataset)
    if self.start is not None and self.start >= model.vocab:
      yield (
        f'task.start: is {self.start}, but the model has {model.vocab} tokens. Expected a token '
        'id below.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.start is not None and self.start < 0:
      yield f'start: is {self.start}. Expected a token id of 0 or more, or none.'
    if self.joined and self.start is not None:
      yield f'start: is {self.start}, but joined sequences have no decoder start. Expected none.'
    if self.separator and not self.joined:
      yield f'separator: is {self.separator!r}, but only joined sequences have one. Expected none.'


def _joined(raw: RawBatch) -> Features:
  """Return source and target of each example as one sequence, with labels of the target only."""
  inside, written = raw['segments'] > 0, raw['target_segments'] > 0
  tokens = np.concatenate([raw['tokens'], raw['target_tokens']], 1)
  # A stable sort moves the padding of the source behind the target.
  order = np.argsort(~np.concatenate([inside, written], 1), axis=1, kind='stable')
  tokens = np.take_along_axis(tokens, order, 1)
  source, size = inside.sum(1, keepdims=True), written.sum(1, keepdims=True)
  at = np.arange(tokens.shape[1])[None]
  predicts = (at >= source - 1) & (at < source + size - 1) & (source > 0)
  return {
    'input_ids': tokens,
    'labels': _next(tokens),
    'prefix_mask': (at < source).astype(np.int32),
    'weights': predicts.astype(np.float32),
  }


def _next(tokens: NDArray[np.int32]) -> NDArray[np.int32]:
  """Shift each sequence one position to the left, and fill up with 0."""
  return np.pad(tokens, ((0, 0), (0, 1)))[:, 1:]


def _named(data: Pairs, ids: str, segments: str) -> tuple[str, ...]:
  """Return the arrays of one tower, with positions for packed rows."""
  return (
    (ids, segments, ids.replace('input', 'position'))
    if data.packed == 'best_fit'
    else (ids, segments)
  )
