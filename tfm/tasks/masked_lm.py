"""Fill in tokens that were taken out (BERT, Devlin et al. 2018; masks drawn anew each epoch, as in
RoBERTa).
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np

from tfm.data import stateless_rng
from tfm.data.corpus import RawBatch
from tfm.data.dataset import ArraySpec
from tfm.tasks.base import Features
from tfm.tasks.text import TextTask, document_specs, documents, one_stack, text_specs


@dataclasses.dataclass(frozen=True)
class MaskedLM(TextTask):
  """-log p(x_t | the rest) of a share `rate` of the ordinary tokens, each chosen by itself.

  Of the chosen, `masked` become the mask token, `random` any ordinary token, the others stay. No
  next-sentence loss."""

  rate: float = 0.15
  masked: float = 0.8
  random: float = 0.1

  def specials(self, length: int) -> tuple[str, ...]:
    del length
    return ('mask',)

  def features(self, raw: RawBatch, dataset: Any) -> Features:
    vocabulary = dataset.vocabulary
    tokens, key, n = raw['tokens'], raw['key'], raw['tokens'].shape[1]
    special = vocabulary.is_special
    chosen = (
      (stateless_rng.uniform(key, 'chosen', n) < self.rate)
      & (raw['segments'] > 0)
      & ~special[tokens]
    )
    fate = stateless_rng.uniform(key, 'fate', n)
    ordinary = np.flatnonzero(~special).astype(np.int32)
    drawn = ordinary[(stateless_rng.uniform(key, 'token', n) * len(ordinary)).astype(np.int64)]
    inputs = np.where(chosen & (fate < self.masked), np.int32(vocabulary.special('mask')), tokens)
    inputs = np.where(
      chosen & (fate >= self.masked) & (fate < self.masked + self.random), drawn, inputs
    )
    out = {'input_ids': inputs, 'labels': tokens, 'weights': chosen.astype(np.float32)}
    # Every token sees the padding of a short last row, so rows say where it is even if they are not
    # packed.
    return out | {'segment_ids': raw['segments']} | documents(raw, dataset.isolate)

  def specs(self, model: Any, data: Any) -> dict[str, ArraySpec]:
    specs = text_specs(data.batch, data.length, 'input_ids', 'labels', 'segment_ids')
    return specs | document_specs(data)

  def fits(self, model: Any) -> Iterator[str]:
    yield from one_stack('masked_lm', model)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 < self.rate <= 1:
      yield f'rate: is {self.rate}. A share above 0, at most 1, was wanted.'
    if self.masked < 0 or self.random < 0 or self.masked + self.random > 1:
      yield f'masked, random: are {self.masked} and {self.random}. Two shares of together at most 1 were wanted.'
