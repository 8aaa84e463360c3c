"""What a task is: raw rows of tokens to inputs, labels and weights, and from logits to a loss."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.core.registry import Part
from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.tokenizer import Vocabulary
from tfm.tasks.xent import cross_entropy

Features = dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Task(Part):
  """Cross-entropy of `labels`, weighted by `weights`; how the two are made of text is each task's own.

  `label_smoothing` is spread over the whole vocabulary with `smooth_gold` (PyTorch), else over the V - 1 wrong ones
  (tensor2tensor); `z_loss` * log^2 Z keeps logits from drifting (PaLM: 1e-4). `mtp` weighs the mean loss of the depths
  of a model that predicts later tokens too: .3, later .1, in DeepSeek-V3; their number, for a sum, in arXiv:2404.19737.
  """

  label_smoothing: float = 0.0
  smooth_gold: bool = True
  z_loss: float = 0.0
  mtp: float = 0.3

  #: Tokens that one raw row shares with the next: 1 where the last one is only predicted.
  overlap = 0

  def window(self, length: int) -> int:
    """Raw tokens that make a model row of `length`."""
    return length

  def lengths(self, length: int) -> tuple[int, ...]:
    """Tokens of a row of every stack: (decoder or encoder,) or (encoder, decoder)."""
    return (length,)

  def specials(self, length: int) -> tuple[str, ...]:
    """The special tokens its rows are written with; see `data.tokenizer.Vocabulary`."""
    del length
    return ()

  def open(self, data: Data) -> Corpus:
    """The corpus of `data` in the rows and with the specials of this task."""
    return data.open(self.window(data.length), self.overlap, self.specials(data.length))

  def features(self, raw: RawBatch, vocabulary: Vocabulary, isolate: bool = False) -> Features:
    """Model inputs by their names, and `labels` int32 and `weights` float32 [B, T] for the logits at the same place.

    A pure function: what is random comes from `raw['key']`. The same keys and shapes for every batch of a corpus;
    with `isolate` (`Corpus.isolate`) they say which document a token is of.
    """
    raise NotImplementedError

  def loss(self, out: dict[str, jax.Array], batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array, dict]:
    """Sums over the batch: the loss in nats, the weights, and {'nll': plain nats, 'correct': weight of right tops}.

    Sums, so that micro-batches and hosts add up exactly; `mean` divides. The losses of later tokens join the first sum
    only, and are divided by as many tokens, though the last k of a document have none at depth k.
    """
    labels_BT, weights_BT = batch['labels'], batch['weights'].astype(jnp.float32)
    ce = self._entropy(out['logits'], labels_BT)
    loss, sums = (
      _total(ce.loss, weights_BT),
      {'nll': _total(ce.nll, weights_BT), 'correct': _total(ce.correct, weights_BT)},
    )
    ahead, unbroken_BT = out.get('mtp_logits', ()), weights_BT > 0
    for logits_BTV in ahead:
      labels_BT, later_BT = _shifted(labels_BT), _shifted(weights_BT)
      # A weight of 0 on the way is the end of a document, where its tokens tell nothing of the next one's.
      unbroken_BT = unbroken_BT & (later_BT > 0)
      found = _total(self._entropy(logits_BTV, labels_BT).loss, jnp.where(unbroken_BT, later_BT, 0.0))
      loss += self.mtp / len(ahead) * found
      weights_BT = later_BT
    return loss, jnp.sum(batch['weights'].astype(jnp.float32)), sums

  def _entropy(self, logits_BTV, labels_BT):
    return cross_entropy(logits_BTV, labels_BT, self.label_smoothing, self.smooth_gold, self.z_loss)

  def fits(self, model: Any) -> Iterator[str]:
    """Yields a sentence for everything about `model` that keeps this task from training it."""
    raise NotImplementedError

  def suits(self, model: Any, corpus: Corpus) -> Iterator[str]:
    """Yields a sentence for everything about `model` that only an open corpus can tell to be wrong."""
    if corpus.vocab > model.vocab:
      n = corpus.vocab
      yield f'model.embed.vocab: {model.vocab} rows for a tokenizer of {n} tokens. Wanted at least {n}.'

  def fits_data(self, data: Data) -> Iterator[str]:
    """Yields a sentence for everything about `data` that keeps this task from reading it."""
    del data
    yield from ()

  def check(self) -> Iterator[str]:
    if not 0 <= self.label_smoothing < 1:
      yield f'label_smoothing: is {self.label_smoothing}. A number from 0 to below 1 was wanted.'
    if self.z_loss < 0:
      yield f'z_loss: is {self.z_loss}. 0 or more was wanted.'
    if self.mtp < 0:
      yield f'mtp: is {self.mtp}. A weight of 0 or more was wanted.'


def _total(x_BT: jax.Array, weights_BT: jax.Array) -> jax.Array:
  return jnp.sum(jnp.where(weights_BT > 0, x_BT * weights_BT, 0.0))


def _shifted(x_BT: jax.Array) -> jax.Array:
  """Each row's numbers one place earlier, and 0 at the end."""
  return jnp.concatenate([x_BT[:, 1:], jnp.zeros_like(x_BT[:, :1])], 1)


def mean(total: jax.Array, weight: jax.Array) -> jax.Array:
  """total / weight, and 0 where nothing has weight."""
  return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)


def next_token(raw: RawBatch, isolate: bool) -> Features:
  """Inputs, labels one to the right, weight 1 where label and input are of one document; documents if `isolate`d."""
  tokens, segments = raw['tokens'], raw['segments']
  same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  out = {'input_ids': tokens[:, :-1], 'labels': tokens[:, 1:], 'weights': same.astype(np.float32)}
  return out | documents({k: raw[k][:, :-1] for k in ('segments', 'positions')}, isolate)


def documents(raw: RawBatch, isolate: bool) -> Features:
  """The inputs that keep the documents of a row apart; none where rows are not packed."""
  return {'segment_ids': raw['segments'], 'position_ids': raw['positions']} if isolate else {}


def with_head(task: str, model: Any) -> Iterator[str]:
  """Says so if `model` has no head that says tokens."""
  if model.lm is None:
    yield f'task: {task} trains a head that says tokens, and the model has none. Choose a model.head, or task=classify.'


def one_stack(task: str, model: Any) -> Iterator[str]:
  """Says so if `model` has no head, or an encoder and a decoder."""
  yield from with_head(task, model)
  if model.encoder is not None:
    yield f'task: {task} trains one stack, and the model has an encoder and a decoder. Choose task=span_corruption.'
