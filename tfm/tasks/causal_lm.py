"""Causal language modelling: predict the next token."""

from collections.abc import Iterator
import dataclasses

from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import Dataset
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, causal_decoder, next_token


@dataclasses.dataclass(frozen=True)
class CausalLM(TextTask):
  """Next-token prediction, with the loss -log p(x_{t+1} | x_1..x_t).

  The task shifts the labels; the data does not.
  """

  overlap = 1
  weighs_tokens = True

  def window(self, length: int) -> int:
    return length + 1

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    return next_token(raw, dataset.isolate)

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from causal_decoder(
      'causal_lm', model, ', task=masked_lm for mask=full, or task=prefix_lm for mask=prefix'
    )
