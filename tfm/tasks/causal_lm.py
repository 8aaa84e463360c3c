"""Causal language modelling: predict the next token."""

from collections.abc import Iterator
import dataclasses

from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import Dataset
from tfm.tasks.base import Features
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, next_token, one_stack


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
    yield from one_stack('causal_lm', model)
    if model.encoder is None and not model.causal:
      yield (
        'task: causal_lm needs a causal model, but a mask or a router of the model leaks later '
        'tokens, which are its labels. Expected mask=causal and router=top_k, task=masked_lm for '
        'mask=full, or task=prefix_lm for mask=prefix.'
      )
