"""The base of language-model tasks: cross-entropy of tokens, and rows of text."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec
from tfm.data.textdata import TextData
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, Task, weighted_sum
from tfm.tasks.xent import cross_entropy


@dataclasses.dataclass(frozen=True)
class TextTask(Task):
  """Cross-entropy of token `labels`, weighted by `weights`. Each task makes both from text in its
  own way.

  Args:
    label_smoothing: Probability spread over the vocabulary.
    smooth_gold: Spread it over all V tokens (PyTorch); otherwise over the V - 1 wrong ones
    (tensor2tensor).
    z_loss: Factor of log^2 Z, which keeps logits from drifting (PaLM: 1e-4).
    mtp: Weight of the mean loss of the later tokens that a multi-token-prediction model predicts:
      0.3, later 0.1, in DeepSeek-V3; their number, for a sum, in arXiv:2404.19737.
  """

  label_smoothing: float = 0.0
  smooth_gold: bool = True
  z_loss: float = 0.0
  mtp: float = 0.3

  shown = Shown('loss_nats', 'loss (nats per token)')

  #: Tokens that consecutive raw rows share: 1 where the last token of a row is only predicted.
  overlap = 0

  def window(self, length: int) -> int:
    """Return the number of raw tokens that make a model row of `length`."""
    return length

  def lengths(self, length: int) -> tuple[int, ...]:
    """Return the tokens of a row in each stack: (decoder or encoder,) or (encoder, decoder)."""
    return (length,)

  def specials(self, length: int) -> tuple[str, ...]:
    """Return the names of the special tokens in its rows. See `data.tokenizer.Vocabulary`."""
    del length
    return ()

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    assert isinstance(data, TextData)
    return self.lengths(data.length)

  def specs(self, model: Any, data: Data) -> dict[str, ArraySpec]:
    del model
    return next_token_specs(data)

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss' (minimised), 'loss_nats' (plain -log p of a label) and 'accuracy', per
    predicted token.

    In evaluation 'loss' is the plain loss, too. The losses of later tokens are added to the sum of
    'loss' only and divided by the same number of tokens, although the last k tokens of a document
    have no label at depth k."""
    out = forward(**self.inputs(batch), mtp=key is not None)
    labels_BT, weights_BT = batch['labels'], batch['weights'].astype(jnp.float32)
    weight = jnp.sum(weights_BT)
    ce = self._entropy(out['logits'], labels_BT)
    # Evaluation has no use for smoothing and z-loss, and leaving them out keeps it cheap.
    loss = weighted_sum(ce.nll if key is None else ce.loss, weights_BT)
    ratios = {
      'loss_nats': Ratio(weighted_sum(ce.nll, weights_BT), weight),
      'accuracy': Ratio(weighted_sum(ce.correct, weights_BT), weight),
    }
    ahead, unbroken_BT = out.get('mtp_logits', ()), weights_BT > 0
    for logits_BTV in ahead:
      labels_BT, later_BT = _shifted(labels_BT), _shifted(weights_BT)
      # A weight of 0 in between is the end of a document, and depth k must not cross it.
      unbroken_BT = unbroken_BT & (later_BT > 0)
      found = weighted_sum(
        self._entropy(logits_BTV, labels_BT).loss, jnp.where(unbroken_BT, later_BT, 0.0)
      )
      loss += self.mtp / len(ahead) * found
      weights_BT = later_BT
    return {'loss': Ratio(loss, weight), **ratios}

  def measures(self, batch: Batch, dataset: Any) -> dict[str, Ratio]:
    if dataset.byte_lengths is None:
      return {}
    bytes_BT = jnp.take(jnp.asarray(dataset.byte_lengths, jnp.int32), batch['labels'], axis=0)
    # An integer, as a batch may have more bytes of text than float32 can count.
    total = jnp.sum(jnp.where(batch['weights'] > 0, bytes_BT, 0))
    return {'bytes': Ratio(total, jnp.ones(()))}

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    """Return loss and accuracy per predicted token, and bits per byte of the predicted text (None
    if unknown).
    """
    nats, size = sums['loss_nats'][0], sums.get('bytes', (0.0, 0.0))[0]
    found = super().score({name: sums[name] for name in ('loss_nats', 'accuracy')})
    return found | {'bits_per_byte': nats / math.log(2) / size if size else None}

  def _entropy(self, logits_BTV, labels_BT):
    return cross_entropy(logits_BTV, labels_BT, self.label_smoothing, self.smooth_gold, self.z_loss)

  def fits_data(self, data: Data) -> Iterator[str]:
    if not isinstance(data, TextData):
      yield f'task: {self.table().name_of(self)} needs text. Expected a data source of text, such as data=text.'

  def suits(self, model: Any, dataset: Any) -> Iterator[str]:
    yield from vocabulary_fits(model, dataset)

  def check(self) -> Iterator[str]:
    if not 0 <= self.label_smoothing < 1:
      yield f'label_smoothing: is {self.label_smoothing}. Expected 0 or more, below 1.'
    if self.z_loss < 0:
      yield f'z_loss: is {self.z_loss}. Expected 0 or more.'
    if self.mtp < 0:
      yield f'mtp: is {self.mtp}. Expected 0 or more.'


def vocabulary_fits(model: Any, corpus: Corpus) -> Iterator[str]:
  """Yield a sentence if the embedding table is smaller than the vocabulary of the corpus."""
  if corpus.vocab > model.vocab:
    yield (
      f'model.embed.vocab: {model.vocab} rows for a tokenizer of {corpus.vocab} tokens. '
      f'Expected at least {corpus.vocab}.'
    )


def _shifted(x_BT: jax.Array) -> jax.Array:
  """Each row's numbers one place earlier, and 0 at the end."""
  return jnp.concatenate([x_BT[:, 1:], jnp.zeros_like(x_BT[:, :1])], 1)


def next_token(raw: RawBatch, isolate: bool) -> Features:
  """Return inputs, labels shifted by one, and weight 1 where label and input are of one document."""
  tokens, segments = raw['tokens'], raw['segments']
  same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  out = {'input_ids': tokens[:, :-1], 'labels': tokens[:, 1:], 'weights': same.astype(np.float32)}
  return out | documents({k: raw[k][:, :-1] for k in ('segments', 'positions')}, isolate)


def next_token_specs(data: Any) -> dict[str, ArraySpec]:
  """Return the arrays of `next_token`."""
  return text_specs(data.batch, data.length, 'input_ids', 'labels') | document_specs(data)


def text_specs(batch: int, length: int, *names: str, letter: str = 'T') -> dict[str, ArraySpec]:
  """Return int32 [batch, length] arrays of these names, and float32 weights of the same shape."""
  shape, letters = (batch, length), f'B{letter}'
  ints = {name: ArraySpec(shape, np.int32, letters) for name in names}
  return ints | {'weights': ArraySpec(shape, np.float32, letters)}


def documents(raw: RawBatch, isolate: bool) -> Features:
  """Return the inputs that isolate the documents of a row; none where rows are not packed."""
  return {'segment_ids': raw['segments'], 'position_ids': raw['positions']} if isolate else {}


def document_specs(data: Any) -> dict[str, ArraySpec]:
  """Return the arrays of `documents`."""
  row = ArraySpec((data.batch, data.length), np.int32, 'BT')
  return {'segment_ids': row, 'position_ids': row} if data.isolate else {}


def with_head(task: str, model: Any) -> Iterator[str]:
  """Yield a sentence if `model` has no language-model head."""
  if model.lm is None:
    yield f'task: {task} needs a language-model head. Expected model.heads.lm=lm, or task=classify.'


def one_stack(task: str, model: Any) -> Iterator[str]:
  """Yield a sentence if `model` has no language-model head, or an encoder and a decoder."""
  yield from with_head(task, model)
  if model.encoder is not None:
    yield f'task: {task} trains one stack, and the model has an encoder and a decoder. Choose task=span_corruption.'
