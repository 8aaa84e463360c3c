"""Permutation language modelling: predict tokens in a random order."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.data import stateless_rng
from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.textdata import TextData
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, document_specs, documents, one_stack, text_specs


@dataclasses.dataclass(frozen=True)
class PermutationLM(TextTask):
  """Permutation language modelling (XLNet, arXiv:1906.08237).

  The loss is -log p(x_{z_t} | x_{z_<t}) of the last tokens in a random order z of a document. The
  order of each document is drawn again in each epoch. Special tokens come first, so they are never
  targets. A document of fewer than `one_in` tokens has no targets.

  Attributes:
    one_in: The last n / `one_in` tokens of the order are targets (the paper's K).
    ordered: The other tokens attend in their order too, as in the paper. Otherwise they attend to
      each other, as in the paper's code and in fine-tuning.

  Note:
    Targets are single tokens, where the original code draws spans of up to 5. Sequences have no
    second segment.
  """

  one_in: int = 6
  ordered: bool = True

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    tokens, segments = raw['tokens'], raw['segments']
    n = tokens.shape[1]
    special = dataset.vocabulary.is_special[tokens]
    draws = stateless_rng.uniform(raw['key'], 'order', n) - special
    rank, size = _ranks(segments, draws)
    chosen = (rank >= size - size // self.one_in) & (segments > 0) & ~special
    positions = np.argsort(~chosen, axis=1, kind='stable')[:, : n // self.one_in]
    is_target = np.take_along_axis(chosen, positions, 1)
    labels = np.take_along_axis(tokens, positions, 1)
    order = rank if self.ordered else np.where(chosen, rank + 1, 0)
    out = {
      'input_ids': tokens,
      'order_ids': order.astype(np.int32),
      'target_positions': np.where(is_target, positions, -1).astype(np.int32),
      'labels': np.where(is_target, labels, 0).astype(np.int32),
      'weights': is_target.astype(np.float32),
    }
    # Segment ids mask out the padding of a short last sequence, even without packing.
    return out | {'segment_ids': segments} | documents(raw, dataset.isolate)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    assert isinstance(data, TextData)
    inputs = text_specs(data.batch, data.length, 'input_ids', 'order_ids', 'segment_ids')
    count = data.length // self.one_in
    targets = text_specs(data.batch, count, 'target_positions', 'labels', letter='P')
    return inputs | targets | document_specs(data)

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from one_stack('permutation_lm', model)
    if not getattr(model.embed, 'query', False):
      yield (
        'task: permutation_lm needs a query embedding, and the model has none. Expected '
        'model.embed.query=true.'
      )
    if model.encoder is None and not model.masked:
      yield (
        'task: permutation_lm needs attention masks that hide its labels, but a mixer or a router '
        'of the model ignores them. Expected mixer=attention and router=top_k without a capacity.'
      )
    if model.mtp is not None or model.classifier is not None:
      yield (
        'task: permutation_lm trains only the language-model head. Expected model.mtp=none and no '
        'head classify.'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from super().fits_data(data)
    if isinstance(data, TextData) and data.length < self.one_in:
      yield (
        f'data.length: is {data.length}, but one token in {self.one_in} is predicted. Expected '
        f'{self.one_in} or more.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    if self.one_in < 2:
      yield (
        f'one_in: is {self.one_in}, but the first token of an order cannot be predicted. Expected '
        '2 or more.'
      )


def _ranks(
  segments: NDArray[Any], draws: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
  """Rank the tokens of each document by `draws`.

  Returns:
    (rank of each token from 0, size of its document), int64 [b, n].
  """
  rows, count = np.arange(len(segments))[:, None], int(segments.max(initial=0)) + 1
  size = np.zeros((len(segments), count), np.int64)
  np.add.at(size, (rows, segments), 1)
  begin = np.cumsum(size, 1) - size
  rank = np.empty(segments.shape, np.int64)
  order = np.lexsort((draws, segments), axis=-1)
  np.put_along_axis(rank, order, np.arange(segments.shape[1])[None], 1)
  return rank - begin[rows, segments], size[rows, segments]
