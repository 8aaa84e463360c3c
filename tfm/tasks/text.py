"""The base of language-model tasks: cross-entropy of tokens."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core.errors import UserError
from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.textdata import TextData
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, Task, weighted_sum
from tfm.tasks.chunked_xent import chunk_size, chunked_cross_entropy
from tfm.tasks.model import TaskModel
from tfm.tasks.xent import CrossEntropy, Target, cross_entropy


@dataclasses.dataclass(frozen=True)
class TextTask(Task):
  """Cross-entropy of token `labels`, weighted by `weights`.

  Attributes:
    label_smoothing: Probability spread over the vocabulary.
    smooth_gold: Spread it over all V tokens (PyTorch), otherwise over the V - 1 wrong ones
      (tensor2tensor).
    z_loss: Factor of log^2 Z, which keeps logits from drifting (PaLM: 1e-4).
    mtp: Weight of the mean loss of the extra depths of a multi-token-prediction model. DeepSeek-V3
      uses 0.3, later 0.1. Set it to their number for a sum (arXiv:2404.19737).
    loss_chunk: Entries of the vocabulary for which logits are computed at a time
      (`tfm.tasks.chunked_xent`). 0 computes all logits at once. Defaults to 0 if the logits of a
      device take up to 512 MiB in float32, else to chunks of half of that.
  """

  label_smoothing: float = 0.0
  smooth_gold: bool = True
  z_loss: float = 0.0
  mtp: float = 0.3
  loss_chunk: int | None = None

  shown = Shown('loss_nats', 'loss (nats per token)')

  #: Whether the loss of a token is weighted by `loss` in the raw batch.
  weighs_tokens: ClassVar[bool] = False

  #: Tokens that consecutive raw sequences share: 1 if their last token is only a label.
  overlap = 0

  def window(self, length: int) -> int:
    """Return the raw tokens of a model sequence of `length` tokens."""
    return length

  def lengths(self, length: int) -> tuple[int, ...]:
    """Return the tokens of a sequence in each tower: (length,) or (encoder, decoder)."""
    return (length,)

  def specials(self, length: int) -> tuple[str, ...]:
    """Return the names of the special tokens of its sequences. See `data.tokenizer.Vocabulary`."""
    del length
    return ()

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    assert isinstance(data, TextData)
    return self.lengths(data.length)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    assert isinstance(data, TextData)
    return next_token_specs(data)

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss' (minimised), 'loss_nats' (-log p of the label) and 'accuracy'.

    All are means over predicted tokens. In evaluation, 'loss' is plain cross-entropy too.
    Multi-token-prediction losses are added to the sum of 'loss' only. They are divided by the same
    number of tokens, although the last k tokens of a document have no label at depth k.
    """
    out = forward(**self.inputs(batch), mtp=key is not None, factored_logits=self.loss_chunk != 0)
    labels_BT, weights_BT = batch['labels'], batch['weights'].astype(jnp.float32)
    weight = jnp.sum(weights_BT)
    ce = self._entropy(out['logits'], labels_BT)
    # Evaluation needs neither smoothing nor z-loss.
    loss = weighted_sum(ce.nll if key is None else ce.loss, weights_BT)
    ratios = {
      'loss_nats': Ratio(weighted_sum(ce.nll, weights_BT), weight),
      'accuracy': Ratio(weighted_sum(ce.correct, weights_BT), weight),
    }
    depths, connected_BT = out.get('mtp_logits', ()), weights_BT > 0
    for logits_BTV in depths:
      labels_BT, weights_BT = _shifted(labels_BT), _shifted(weights_BT)
      # A weight of 0 marks the end of a document, which no prediction may cross.
      connected_BT = connected_BT & (weights_BT > 0)
      depth_loss = self._entropy(logits_BTV, labels_BT).loss
      total = weighted_sum(depth_loss, jnp.where(connected_BT, weights_BT, 0.0))
      loss += self.mtp / len(depths) * total
    return {'loss': Ratio(loss, weight), **ratios}

  def measures(self, batch: Batch, dataset: Dataset) -> dict[str, Ratio]:
    assert isinstance(dataset, Corpus)
    if dataset.byte_lengths is None:
      return {}
    bytes_BT = jnp.take(jnp.asarray(dataset.byte_lengths, jnp.int32), batch['labels'], axis=0)
    # Integer, because a batch may have more bytes of text than float32 can count.
    total = jnp.sum(jnp.where(batch['weights'] > 0, bytes_BT, 0))
    return {'bytes': Ratio(total, jnp.ones(()))}

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    """Return loss and accuracy per predicted token, and bits per byte of the predicted text.

    Bits per byte are None if the byte lengths of tokens are unknown.
    """
    nats, size = sums['loss_nats'][0], sums.get('bytes', (0.0, 0.0))[0]
    scores = super().score({name: sums[name] for name in ('loss_nats', 'accuracy')})
    return scores | {'bits_per_byte': nats / math.log(2) / size if size else None}

  def _entropy(self, logits: Any, labels_BT: jax.Array) -> CrossEntropy:
    """Return the cross-entropy of logits [B, T, V] or of their factors."""
    smoothing = (self.label_smoothing, self.smooth_gold, self.z_loss)
    if isinstance(logits, jax.Array):
      if self.loss_chunk:
        raise UserError(
          f'task.loss_chunk: is {self.loss_chunk}, but the head has an adapter, rounded weights or '
          'two weights, and computes whole logits. Expected task.loss_chunk=none or 0.'
        )
      return cross_entropy(logits, labels_BT, *smoothing)
    chunk = chunk_size(logits, self.loss_chunk)
    if not chunk:
      return cross_entropy(logits.logits(), labels_BT, *smoothing)
    return chunked_cross_entropy(logits, labels_BT, Target.of(logits.vocab, *smoothing), chunk)

  def fits_data(self, data: Data) -> Iterator[str]:
    name = self.table().name_of(self)
    if not isinstance(data, TextData):
      yield f'task: {name} needs text. Expected a source of text, such as data=text.'
    elif 'loss' in data.specs() and not self.weighs_tokens:
      yield f'task: {name} ignores the token weights of this source. Expected causal_lm.'
    elif data.paired:
      yield f'task: {name} needs documents, and the data has pairs. Expected task=seq2seq.'

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    assert isinstance(dataset, Corpus)
    yield from vocabulary_fits(model, dataset)

  def check(self) -> Iterator[str]:
    if not 0 <= self.label_smoothing < 1:
      yield f'label_smoothing: is {self.label_smoothing}. Expected 0 or more, below 1.'
    if self.z_loss < 0:
      yield f'z_loss: is {self.z_loss}. Expected 0 or more.'
    if self.mtp < 0:
      yield f'mtp: is {self.mtp}. Expected 0 or more.'
    if self.loss_chunk is not None and self.loss_chunk < 0:
      yield f'loss_chunk: is {self.loss_chunk}. Expected 0 or more, or none.'


def vocabulary_fits(model: TaskModel, corpus: Corpus) -> Iterator[str]:
  """Yield a message if the embedding table is smaller than the vocabulary of the corpus."""
  if corpus.vocab > model.vocab:
    yield (
      f'model.embed.vocab: is {model.vocab}, but the tokenizer has {corpus.vocab} tokens. '
      f'Expected {corpus.vocab} or more.'
    )


def _shifted(x_BT: jax.Array) -> jax.Array:
  """Shift each sequence one position to the left, and fill up with 0."""
  return jnp.concatenate([x_BT[:, 1:], jnp.zeros_like(x_BT[:, :1])], 1)


def next_token(raw: RawBatch, isolate: bool) -> Features:
  """Return inputs, labels shifted by one, and weights.

  The weight is 1 where the input and the label are in the same document, else 0. It is multiplied
  by `loss` of the label, if the raw batch has it.
  """
  tokens, segments = raw['tokens'], raw['segments']
  same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  weights = same.astype(np.float32)
  if 'loss' in raw:
    weights *= raw['loss'][:, 1:]
  out = {'input_ids': tokens[:, :-1], 'labels': tokens[:, 1:], 'weights': weights}
  return out | documents({k: raw[k][:, :-1] for k in ('segments', 'positions')}, isolate)


def next_token_specs(data: TextData) -> dict[str, ArraySpec]:
  """Return the arrays of `next_token`."""
  return text_specs(data.batch, data.length, 'input_ids', 'labels') | document_specs(data)


def text_specs(batch: int, length: int, *names: str, letter: str = 'T') -> dict[str, ArraySpec]:
  """Return int32 arrays [batch, length], and float32 `weights` of the same shape.

  Args:
    batch: The size of the global batch.
    length: The number of tokens.
    *names: The names of the int32 arrays.
    letter: The axis letter of the tokens.

  Returns:
    The specs by name.
  """
  shape, letters = (batch, length), f'B{letter}'
  ints = {name: ArraySpec(shape, np.int32, letters) for name in names}
  return ints | {'weights': ArraySpec(shape, np.float32, letters)}


def documents(raw: RawBatch, isolate: bool) -> Features:
  """Return the inputs that isolate the documents of a packed sequence, if `isolate`."""
  return {'segment_ids': raw['segments'], 'position_ids': raw['positions']} if isolate else {}


def document_specs(data: TextData) -> dict[str, ArraySpec]:
  """Return the arrays of `documents`."""
  tokens = ArraySpec((data.batch, data.length), np.int32, 'BT')
  return {'segment_ids': tokens, 'position_ids': tokens} if data.isolated else {}


def one_document(data: TextData, why: str) -> Iterator[str]:
  """Yield a message if sequences of `data` have several isolated documents.

  Args:
    data: The source.
    why: Why the task cannot use them.

  Yields:
    At most one message.
  """
  if data.packed in ('stream_segments', 'best_fit'):
    field = 'isolate: is True' if data.isolate else f'packing: is {data.packing}'
    yield f'data.{field}, but {why}. Expected packing=stream or none.'


def with_head(task: str, model: TaskModel) -> Iterator[str]:
  """Yield a message if `model` has no language-model head."""
  if model.lm is None:
    yield (
      f'task: {task} needs a language-model head, and the model has none. Expected '
      'model.heads.lm=lm, or task=classify.'
    )


def causal_decoder(task: str, model: TaskModel, other: str = '') -> Iterator[str]:
  """Yield a message if `model` is no causal decoder with a language-model head.

  Args:
    task: Name of the task.
    model: The model.
    other: Further advice for a model that attends to later tokens.

  Yields:
    One message for each reason.
  """
  yield from one_stack(task, model)
  if model.encoder is None and not model.causal:
    yield (
      f'task: {task} needs a causal model, but a mask or a router of the model leaks later '
      f'tokens, which are its labels. Expected mask=causal and router=top_k{other}.'
    )


def one_stack(task: str, model: TaskModel) -> Iterator[str]:
  """Yield a message if `model` has no language-model head, or has an encoder."""
  yield from with_head(task, model)
  if model.encoder is not None:
    yield (
      f'task: {task} needs a single tower, but the model is an encoder-decoder. Expected '
      'task=span_corruption.'
    )
