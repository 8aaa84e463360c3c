"""Masked language modelling: predict tokens that were masked."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.textdata import TextData
from tfm.tasks import next_sentence
from tfm.tasks.base import Batch, Features, Forward, Ratio, Recorder, Task, mean, weighted_sum
from tfm.tasks.masking import Masking, content_keys
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, document_specs, documents, one_stack, text_specs
from tfm.tasks.xent import cross_entropy


@dataclasses.dataclass(frozen=True)
class MaskedLM(TextTask):
  """Masked-token prediction (BERT, arXiv:1810.04805; RoBERTa, arXiv:1907.11692).

  Tokens are chosen independently of each other. Special tokens are never chosen. A sequence without
  a chosen token adds nothing to the loss; the training metric `unmasked` is the share of these
  sequences. A batch without a chosen token has loss 0.

  Attributes:
    rate: Probability that an ordinary token is chosen for prediction.
    masked: Share of the chosen tokens that become the mask token.
    random: Share of the chosen tokens that become a random ordinary token. The rest is unchanged.
    whole_word: Choose words, with all of their tokens. See `tfm.data.words`.
    static: Mask a sequence in the same way in every epoch (BERT). Otherwise each epoch has new
      masks (RoBERTa).
    next_sentence: Also predict whether the second half of a sequence follows the first (BERT), with
      the head `classify`. See `tfm.tasks.next_sentence`.
  """

  rate: float = 0.15
  masked: float = 0.8
  random: float = 0.1
  whole_word: bool = False
  static: bool = False
  next_sentence: bool = False

  targets = ('labels', 'weights', 'next_sentence_label')

  @property
  def masking(self) -> Masking:
    """The choice of tokens."""
    return Masking(self.rate, self.masked, self.random, self.whole_word)

  def window(self, length: int) -> int:
    return length - next_sentence.SPECIALS * self.next_sentence

  def specials(self, length: int) -> tuple[str, ...]:
    del length
    return ('mask', 'cls', 'eos') if self.next_sentence else ('mask',)

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    key = content_keys(raw['tokens']) if self.static else raw['key']
    # Segment ids mask out the padding of a short last sequence, even without packing.
    out = {'segment_ids': raw['segments']} | documents(raw, dataset.isolate)
    tokens = raw['tokens']
    if self.next_sentence:
      out = next_sentence.pairs(raw, key, dataset)
      tokens = out.pop('tokens')
    masked = self.masking.apply(tokens, out['segment_ids'], key, dataset.vocabulary)
    weights = masked.chosen.astype(np.float32)
    return {'input_ids': masked.tokens, 'labels': tokens, 'weights': weights} | out

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    assert isinstance(data, TextData)
    specs = text_specs(data.batch, data.length, 'input_ids', 'labels', 'segment_ids')
    if self.next_sentence:
      label = ArraySpec((data.batch,), np.int32, 'B')
      return specs | {'token_type_ids': specs['input_ids'], 'next_sentence_label': label}
    return specs | document_specs(data)

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return the metrics of `TextTask`, and in training 'unmasked'.

    With `next_sentence` also 'next_sentence_nats' and 'next_sentence_accuracy', per sequence. The
    mean of 'next_sentence_nats' is added to 'loss', in micro-batches too.
    """
    recorder = Recorder(forward)
    ratios = super().loss(recorder, batch, key)
    real_B = jnp.any(batch['segment_ids'] > 0, 1).astype(jnp.float32)
    count = jnp.sum(real_B)
    if key is not None:
      unmasked_B = ~jnp.any(batch['weights'] > 0, 1)
      ratios['unmasked'] = Ratio(jnp.sum(unmasked_B * real_B), count)
    if self.next_sentence:
      ce = cross_entropy(recorder.out['class_logits'], batch['next_sentence_label'])
      loss = ratios['loss']
      average = mean(weighted_sum(ce.loss, real_B), count)
      ratios['loss'] = Ratio(loss.sum + average * loss.weight, loss.weight)
      ratios['next_sentence_nats'] = Ratio(weighted_sum(ce.nll, real_B), count)
      ratios['next_sentence_accuracy'] = Ratio(weighted_sum(ce.correct, real_B), count)
    return ratios

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    extra = {name: ratio for name, ratio in sums.items() if name.startswith('next_sentence_')}
    return super().score(sums) | Task.score(self, extra)

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from one_stack('masked_lm', model)
    if self.next_sentence:
      yield from next_sentence.fits(model)

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from super().fits_data(data)
    if self.next_sentence and isinstance(data, TextData):
      yield from next_sentence.fits_data(data)

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    yield from super().suits(model, dataset)
    assert isinstance(dataset, Corpus)
    if self.next_sentence:
      yield from next_sentence.suits(dataset)
    yield from self.masking.suits(dataset.vocabulary)

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from self.masking.check()
