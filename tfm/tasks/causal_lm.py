"""Predict the next token."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from tfm.data.corpus import RawBatch
from tfm.tasks.base import Features
from tfm.tasks.text import TextTask, next_token, one_stack


@dataclasses.dataclass(frozen=True)
class CausalLM(TextTask):
  """-log p(x_{t+1} | x_1..x_t). Labels are shifted here and nowhere else."""

  overlap = 1

  def window(self, length: int) -> int:
    return length + 1

  def features(self, raw: RawBatch, dataset: Any) -> Features:
    return next_token(raw, dataset.isolate)

  def fits(self, model: Any) -> Iterator[str]:
    yield from one_stack('causal_lm', model)
    if model.encoder is None and not model.causal:
      yield (
        'task: causal_lm would show the model its labels: a mask or a router of the model lets a '
        'token learn of later '
        'ones. Choose mask=causal and router=top_k, or task=masked_lm for mask=full, or '
        'task=prefix_lm for mask=prefix.'
      )
