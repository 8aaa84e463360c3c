"""Prefix language modelling: continue a prefix that is read bidirectionally."""

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
from tfm.tasks.text import TextTask, next_token, next_token_specs, one_stack


@dataclasses.dataclass(frozen=True)
class PrefixLM(TextTask):
  """Next-token prediction after a prefix (T5, arXiv:1910.10683, section 3.2.3).

  A prefix has at least one token and leaves at least one to predict. The objective and the mask are
  independent: with mask=causal, the prefix is read causally and not predicted.

  Attributes:
    min_prefix: The smallest share of a document that is its prefix.
    max_prefix: The largest share. Shares are drawn uniformly in between.
    loss_on_prefix: Predict the prefix too, which needs mask=causal.
  """

  min_prefix: float = 0.0
  max_prefix: float = 1.0
  loss_on_prefix: bool = False

  overlap = 1

  def window(self, length: int) -> int:
    return length + 1

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    out = next_token(raw, dataset.isolate)
    ends_BT = self._prefix_lengths(raw['segments'], raw['key'])[:, :-1]
    position = raw['positions'][:, :-1]
    out['prefix_mask'] = ((position < ends_BT) & (raw['segments'][:, :-1] > 0)).astype(np.int32)
    if not self.loss_on_prefix:
      out['weights'] = out['weights'] * (position >= ends_BT - 1)
    return out

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    assert isinstance(data, TextData)
    specs = next_token_specs(data)
    return specs | {'prefix_mask': specs['input_ids']}

  def _prefix_lengths(self, segments: NDArray[Any], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the prefix length of each token's document, int64 [b, window]."""
    rows, documents = np.arange(len(segments))[:, None], int(segments.max(initial=0)) + 1
    size = np.zeros((len(segments), documents), np.int64)
    np.add.at(size, (rows, segments), 1)
    draws = stateless_rng.uniform(key, 'prefix', documents)
    share = self.min_prefix + (self.max_prefix - self.min_prefix) * draws
    length = np.clip(np.floor(share * size).astype(np.int64), 1, np.maximum(size - 1, 1))
    return length[rows, segments]

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from one_stack('prefix_lm', model)
    if model.encoder is not None:
      return
    if model.ahead:
      yield (
        'task: prefix_lm needs a model that is causal after the prefix, but a mask or a router '
        'leaks later tokens, which are its labels. Expected mask=prefix and router=top_k.'
      )
    if self.loss_on_prefix and not model.causal:
      yield (
        'task.loss_on_prefix: the model attends to its whole prefix, which would be its labels. '
        'Expected mask=causal, or loss_on_prefix=False.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 <= self.min_prefix <= self.max_prefix <= 1:
      yield (
        f'min_prefix, max_prefix: are {self.min_prefix} and {self.max_prefix}. Expected '
        '0 <= min <= max <= 1.'
      )
