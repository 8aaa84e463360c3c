"""Say which class a text is of."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np

from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.folders import Folders, LabelledCorpus
from tfm.data.tokenizer import Vocabulary
from tfm.tasks.base import Features, Task


@dataclasses.dataclass(frozen=True)
class Classify(Task):
  """-log p(class | row) of rows that are pieces of one document each.

  With `framed` a row begins with the special token 'cls' and ends with 'eos', as BERT's do ([CLS] ... [SEP]).
  """

  framed: bool = True

  def window(self, length: int) -> int:
    return length - 2 * self.framed

  def specials(self, length: int) -> tuple[str, ...]:
    del length
    return ('cls', 'eos') if self.framed else ()

  def features(self, raw: RawBatch, vocabulary: Vocabulary, isolate: bool = False) -> Features:
    del isolate
    tokens, mask = raw['tokens'], (raw['segments'] > 0).astype(np.int32)
    rows = (mask[:, 0] > 0).astype(np.float32)
    if self.framed:
      one = np.ones((len(tokens), 1), np.int32)
      ends = mask.sum(1)
      tokens = np.concatenate([one * vocabulary.special('cls'), tokens, one * 0], 1)
      mask = np.concatenate([one, one, mask], 1)
      tokens[np.arange(len(tokens)), ends + 1] = vocabulary.special('eos')
    return {'input_ids': tokens * mask, 'attention_mask': mask, 'labels': raw['labels'], 'weights': rows}

  def fits(self, model: Any) -> Iterator[str]:
    if model.classifier is None or not model.classifier.labels or model.classifier.pick == 'each':
      yield (
        'task: classify trains a classifier of whole rows, and the model has none. '
        'Choose model.classifier, with its labels and what it picks.'
      )
    if model.lm is not None or model.encoder is not None:
      yield 'task: classify trains one stack without a head of tokens. Choose model.head=none and no encoder.'

  def fits_data(self, data: Data) -> Iterator[str]:
    if not isinstance(data, Folders):
      yield 'task: classify wants labels, and the data has none. Choose data=folders.'
    if data.length < 3:
      yield f'data.length: is {data.length}, too short for a text and the tokens around it. Wanted at least 3.'

  def suits(self, model: Any, corpus: Corpus) -> Iterator[str]:
    yield from super().suits(model, corpus)
    assert isinstance(corpus, LabelledCorpus)
    if (labels := model.classifier.labels) != (n := len(corpus.names)):
      yield f'model.classifier.labels: {labels} for data of {n} classes: {", ".join(corpus.names)}. Wanted {n}.'
