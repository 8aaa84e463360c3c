"""Masked language modelling: predict tokens that were masked."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from tfm.data import stateless_rng
from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.textdata import TextData
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, document_specs, documents, one_stack, text_specs


@dataclasses.dataclass(frozen=True)
class MaskedLM(TextTask):
  """Masked-token prediction (BERT, arXiv:1810.04805), without next-sentence loss.

  Tokens are chosen independently, and again in each epoch (RoBERTa, arXiv:1907.11692). Special
  tokens are never chosen.

  Attributes:
    rate: Probability that an ordinary token is chosen for prediction.
    masked: Share of the chosen tokens that become the mask token.
    random: Share of the chosen tokens that become a random ordinary token. The rest is unchanged.
  """

  rate: float = 0.15
  masked: float = 0.8
  random: float = 0.1

  def specials(self, length: int) -> tuple[str, ...]:
    del length
    return ('mask',)

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    vocabulary = dataset.vocabulary
    tokens, key, n = raw['tokens'], raw['key'], raw['tokens'].shape[1]
    special = vocabulary.is_special
    chosen = stateless_rng.uniform(key, 'chosen', n) < self.rate
    chosen = chosen & (raw['segments'] > 0) & ~special[tokens]
    draw = stateless_rng.uniform(key, 'fate', n)
    ordinary = np.flatnonzero(~special).astype(np.int32)
    random = ordinary[(stateless_rng.uniform(key, 'token', n) * len(ordinary)).astype(np.int64)]
    masked = draw < self.masked
    replaced = ~masked & (draw < self.masked + self.random)
    inputs = np.where(chosen & masked, np.int32(vocabulary.special('mask')), tokens)
    inputs = np.where(chosen & replaced, random, inputs)
    out = {'input_ids': inputs, 'labels': tokens, 'weights': chosen.astype(np.float32)}
    # Segment ids mask out the padding of a short last sequence, even without packing.
    return out | {'segment_ids': raw['segments']} | documents(raw, dataset.isolate)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    assert isinstance(data, TextData)
    specs = text_specs(data.batch, data.length, 'input_ids', 'labels', 'segment_ids')
    return specs | document_specs(data)

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from one_stack('masked_lm', model)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 < self.rate <= 1:
      yield f'rate: is {self.rate}. Expected a share above 0, at most 1.'
    if self.masked < 0 or self.random < 0 or self.masked + self.random > 1:
      yield (
        f'masked, random: are {self.masked} and {self.random}. Expected two shares that add up to '
        'at most 1.'
      )
