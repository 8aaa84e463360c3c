"""Tagging: one class for each word, such as named entities or parts of speech."""

from collections.abc import Iterator
import dataclasses
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.tagged import span_tags
from tfm.data.textdata import TextData
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, weighted_sum
from tfm.tasks.framed import FramedTask, framed_specs
from tfm.tasks.model import TaskModel
from tfm.tasks.text import vocabulary_fits
from tfm.tasks.xent import cross_entropy


@dataclasses.dataclass(frozen=True)
class Tagging(FramedTask):
  """Cross-entropy of the tag of each word, at the first token of the word (arXiv:1810.04805).

  Later tokens of a word have no label. The data is `data=tagged`, and the head
  `classify(pick=each)`.

  Attributes:
    spans: Also compute 'f1', the F1 score of whole spans (CoNLL-2003). The tags are O, B-X and I-X.
      A span is right if its start, its end and X are right.
  """

  spans: bool = True

  shown = Shown('loss_nats', 'loss (nats per word)')
  logged = ('accuracy',)

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    out = self.text_features(raw, dataset)
    begin = len(dataset.frame.begin) if self.framed else 0
    end = out['input_ids'].shape[1] - begin - raw['labels'].shape[1]
    # Padding examples still have the labels of a real one.
    labels = np.where(raw['segments'] > 0, raw['labels'], -1)
    labels = np.pad(labels, ((0, 0), (begin, end)), constant_values=-1).astype(np.int32)
    weights = (labels >= 0).astype(np.float32)
    return out | {'labels': np.maximum(labels, 0), 'weights': weights}

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    assert isinstance(data, TextData)
    specs = framed_specs(data)
    tokens = specs['input_ids']
    return specs | {'labels': tokens, 'weights': tokens._replace(dtype=np.float32)}

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss' and 'loss_nats' (both the cross-entropy), 'accuracy', and 'f1' with `spans`.

    The weight of 'f1' is the number of predicted and true spans, and its sum twice the number of
    right ones. So it adds up exactly over batches and hosts.
    """
    del key
    logits_BTV, labels_BT = forward(**self.inputs(batch))['logits'], batch['labels']
    weights_BT = batch['weights'].astype(jnp.float32)
    ce = cross_entropy(logits_BTV, labels_BT)
    weight = jnp.sum(weights_BT)
    loss = Ratio(weighted_sum(ce.loss, weights_BT), weight)
    correct = Ratio(weighted_sum(ce.correct, weights_BT), weight)
    ratios = {'loss': loss, 'loss_nats': loss, 'accuracy': correct}
    if self.spans:
      counts = span_counts(jnp.argmax(logits_BTV, -1), labels_BT, weights_BT > 0)
      total = counts.predicted + counts.true
      ratios['f1'] = Ratio(2.0 * counts.right, total.astype(jnp.float32))
    return ratios

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    return super().score({name: ratio for name, ratio in sums.items() if name != 'loss'})

  def fits(self, model: TaskModel) -> Iterator[str]:
    head = model.classifier
    if head is None or not head.labels or head.pick != 'each':
      yield (
        'task: tagging needs a head that classifies each token, and the model has none. Expected '
        "model.heads.classify='classify(labels=...,pick=each)'."
      )
    if model.lm is not None or model.encoder is not None:
      yield (
        'task: tagging needs one tower without a language-model head. Expected model.heads.lm=none.'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    labels = data.specs().get('labels')
    if not isinstance(data, TextData) or labels is None or len(labels.shape) != 2:
      yield 'task: tagging needs a tag for each word. Expected data=tagged.'
    elif data.length < 3:
      yield (
        f'data.length: {data.length} tokens do not fit a text and its special tokens. Expected 3 '
        'or more.'
      )

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    assert isinstance(dataset, Corpus)
    yield from vocabulary_fits(model, dataset)
    labels, names = model.classifier.labels if model.classifier else 0, dataset.names
    if labels != len(names):
      yield (
        f'model.heads.classify.labels: is {labels}, but the data has {len(names)} tags '
        f'({", ".join(names)}). Expected {len(names)}.'
      )
    if self.spans and list(names) != span_tags(names):
      yield (
        f'task.spans: is True, but the tags are {", ".join(names[:8])}. Expected tags O, B-X and '
        'I-X, or task.spans=False.'
      )


class SpanCounts(NamedTuple):
  """Numbers of spans in a batch, int32.

  Attributes:
    right: Predicted spans that are true ones.
    predicted: Predicted spans.
    true: True spans.
  """

  right: jax.Array
  predicted: jax.Array
  true: jax.Array


def span_counts(predicted_BT: jax.Array, true_BT: jax.Array, word_BT: jax.Array) -> SpanCounts:
  """Count spans of tags in the order of `span_tags`.

  A span begins at B-X, or at I-X if the word before is not in a span of X (the rule of conlleval).

  Args:
    predicted_BT: Predicted tags.
    true_BT: True tags.
    word_BT: Which tokens have a tag. The others are skipped.

  Returns:
    The counts.
  """
  begins_BT, next_BT = _spans(predicted_BT, word_BT)
  true_begins_BT, true_next_BT = _spans(true_BT, word_BT)
  same_BT = (_kind(predicted_BT) == _kind(true_BT)) & (next_BT == true_next_BT)
  count = lambda x_BT: jnp.sum(x_BT, dtype=jnp.int32)
  right = count(begins_BT & true_begins_BT & same_BT)
  return SpanCounts(right, count(begins_BT), count(true_begins_BT))


def _kind(tags_BT: jax.Array) -> jax.Array:
  """Return the kind of span of each tag, 0 for O."""
  return (tags_BT + 1) // 2


def _spans(tags_BT: jax.Array, word_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Return where spans begin, and the place after each token where its span has ended."""
  B, T = tags_BT.shape
  place_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
  last_BT = lax.cummax(jnp.where(word_BT, place_BT, -1), axis=1)
  before_BT = jnp.pad(last_BT, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
  previous_BT = jnp.take_along_axis(_kind(tags_BT), jnp.maximum(before_BT, 0), 1)
  previous_BT = jnp.where(before_BT >= 0, previous_BT, 0)
  kind_BT = _kind(tags_BT)
  # Tags are O = 0, then pairs of B (odd) and I (even).
  inside_BT = (tags_BT % 2 == 0) & (kind_BT > 0) & (kind_BT == previous_BT)
  begins_BT = word_BT & (kind_BT > 0) & ~inside_BT
  stops_BT = jnp.where(word_BT & ~inside_BT, place_BT, T)
  first_BT = lax.cummin(stops_BT, axis=1, reverse=True)
  return begins_BT, jnp.pad(first_BT, ((0, 0), (0, 1)), constant_values=T)[:, 1:]
