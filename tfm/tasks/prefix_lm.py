"""Predict the rest of a text from a beginning that is read both ways (Liu et al. 2018; T5, section
3.2.3).
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np

from tfm.data import stateless_rng
from tfm.data.corpus import RawBatch
from tfm.data.dataset import ArraySpec
from tfm.tasks.base import Features
from tfm.tasks.text import TextTask, next_token, next_token_specs, one_stack


@dataclasses.dataclass(frozen=True)
class PrefixLM(TextTask):
  """-log p(x_{t+1} | x_1..x_t) after the prefix: a share of the document drawn from [`min_prefix`,
  `max_prefix`].

  A prefix has at least one token and leaves at least one to predict. The objective and the mask are
  independent: with mask=causal the prefix is merely read. `loss_on_prefix` trains on the prefix
  too, with mask=causal only."""

  min_prefix: float = 0.0
  max_prefix: float = 1.0
  loss_on_prefix: bool = False

  overlap = 1

  def window(self, length: int) -> int:
    return length + 1

  def features(self, raw: RawBatch, dataset: Any) -> Features:
    out = next_token(raw, dataset.isolate)
    ends_BT = self._prefix_lengths(raw['segments'], raw['key'])[:, :-1]
    position = raw['positions'][:, :-1]
    out['prefix_mask'] = ((position < ends_BT) & (raw['segments'][:, :-1] > 0)).astype(np.int32)
    if not self.loss_on_prefix:
      out['weights'] = out['weights'] * (position >= ends_BT - 1)
    return out

  def specs(self, model: Any, data: Any) -> dict[str, ArraySpec]:
    specs = next_token_specs(data)
    return specs | {'prefix_mask': specs['input_ids']}

  def _prefix_lengths(self, segments, key):
    """int64 [b, window]: how long the prefix of each token's document is."""
    rows, documents = np.arange(len(segments))[:, None], int(segments.max(initial=0)) + 1
    size = np.zeros((len(segments), documents), np.int64)
    np.add.at(size, (rows, segments), 1)
    share = self.min_prefix + (self.max_prefix - self.min_prefix) * stateless_rng.uniform(
      key, 'prefix', documents
    )
    return np.clip(np.floor(share * size).astype(np.int64), 1, np.maximum(size - 1, 1))[
      rows, segments
    ]

  def fits(self, model: Any) -> Iterator[str]:
    yield from one_stack('prefix_lm', model)
    if model.encoder is not None:
      return
    if model.ahead:
      yield (
        'task: prefix_lm would show the model its labels: a mask or a router of it tells of later '
        'tokens. '
        'Choose mask=prefix, and router=top_k.'
      )
    if self.loss_on_prefix and not model.causal:
      yield (
        'task.loss_on_prefix: the model reads its prefix both ways and would see these labels. '
        'Choose mask=causal, or loss_on_prefix=False.'
      )

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 <= self.min_prefix <= self.max_prefix <= 1:
      yield f'min_prefix, max_prefix: are {self.min_prefix} and {self.max_prefix}. 0 <= min <= max <= 1 was wanted.'
