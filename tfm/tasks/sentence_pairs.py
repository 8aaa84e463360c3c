"""Sentence embeddings from pairs of texts, with the other texts of a batch as negatives."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.framing import Framing, prompt_frame
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Vocabulary
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, weighted_sum
from tfm.tasks.contrastive import choice_loss
from tfm.tasks.framed import FramedTask, framed_specs
from tfm.tasks.model import TaskModel
from tfm.tasks.text import one_document, vocabulary_fits


@dataclasses.dataclass(frozen=True)
class SentencePairs(FramedTask):
  """InfoNCE loss of text embeddings with in-batch negatives (arXiv:1807.03748).

  The loss of pair i is -log softmax_j(cos(a_i, b_j) / temperature) at j = i. With `data=pairs`, a
  and b are the source and the target (Sentence-BERT, arXiv:1908.10084). With other text, both are
  the same text with other dropout masks (SimCSE, arXiv:2104.08821), so the model needs dropout. The
  head chooses the pooling: `project(dim=none, pick=mean)`, or `classify(labels=0, hidden=tanh)`.

  Attributes:
    temperature: Divides the cosines.
    symmetric: Also choose a for each b, and take the mean of both losses.
    output: Name of the model output with the embeddings [B, D].
  """

  temperature: float = 0.05
  symmetric: bool = False
  output: str = 'embeds'

  targets = ('weights', 'second_input_ids', 'second_attention_mask')
  shown = Shown('loss', 'loss (nats per pair)')
  logged = ('accuracy',)
  loss_per_example = False

  def frames(self, vocabulary: Vocabulary) -> tuple[Framing, Framing]:
    """Return the special tokens around both texts of a pair, for `data=pairs`."""
    if not self.framed:
      return Framing(), Framing()
    if vocabulary.published:
      frame = prompt_frame(vocabulary)
    else:
      frame = Framing((vocabulary.special('cls'),), (vocabulary.special('eos'),))
    return frame, frame

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    if 'target_tokens' not in raw:
      return self.text_features(raw, dataset)
    # Pairs already have their special tokens.
    first, second = (_padded(raw, side) for side in ('', 'target_'))
    return {
      'input_ids': first[0],
      'attention_mask': first[1],
      'second_input_ids': second[0],
      'second_attention_mask': second[1],
      'weights': (first[1][:, 0] > 0).astype(np.float32),
    }

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    assert isinstance(data, TextData)
    specs, second = framed_specs(data), data.specs().get('target_tokens')
    if second is None:
      return specs
    return specs | {'second_input_ids': second, 'second_attention_mask': second}

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss', and 'accuracy', the share of texts that are closest to their own pair.

    Padding examples of weight 0 are neither matched nor used as negatives.
    """
    del key
    names = ('input_ids', 'attention_mask')
    second = {name: batch.get(f'second_{name}', batch[name]) for name in names}
    a_BD, b_BD = (_unit(forward(**x)[self.output]) for x in (self.inputs(batch), second))
    cosine_AB = jnp.einsum('AD,BD->AB', a_BD, b_BD)
    logits_AB = cosine_AB / self.temperature
    weights_B = (batch['weights'] > 0).astype(jnp.float32)
    pair_AB = weights_B[:, None] * weights_B[None, :]
    loss_B = choice_loss(logits_AB, pair_AB)
    if self.symmetric:
      loss_B = (loss_B + choice_loss(logits_AB.T, pair_AB.T)) / 2
    best_B = jnp.argmax(jnp.where(pair_AB > 0, logits_AB, -jnp.inf), 1)
    right_B = best_B == jnp.arange(len(best_B))
    weight = jnp.sum(weights_B)
    return {
      'loss': Ratio(weighted_sum(loss_B, weights_B), weight),
      'accuracy': Ratio(jnp.sum(right_B * weights_B), weight),
    }

  def fits(self, model: TaskModel) -> Iterator[str]:
    if self.output not in model.returns:
      yield (
        f'task.output: no head returns {self.output!r}. Expected a vector of each text, such as '
        "model.heads.embeds='project(dim=none,pick=mean)'."
      )
    if model.encoder is not None:
      yield 'task: sentence_pairs needs a single tower. Expected a model without an encoder.'

  def fits_data(self, data: Data) -> Iterator[str]:
    if not isinstance(data, TextData):
      yield 'task: sentence_pairs needs text. Expected data=pairs, or another source of text.'
      return
    yield from one_document(data, 'each sequence has one embedding')
    if data.length < 3:
      yield (
        f'data.length: {data.length} tokens do not fit a text and its special tokens. Expected 3 '
        'or more.'
      )

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    assert isinstance(dataset, Corpus)
    yield from vocabulary_fits(model, dataset)

  def check(self) -> Iterator[str]:
    if not self.temperature > 0:
      yield f'temperature: is {self.temperature}. Expected a positive number.'


def _padded(raw: RawBatch, side: str) -> tuple[Any, Any]:
  """Return the token ids and the attention mask of one side of pairs, int32 [b, n]."""
  mask = (raw[f'{side}segments'] > 0).astype(np.int32)
  return raw[f'{side}tokens'] * mask, mask


def _unit(x_BD: jax.Array) -> jax.Array:
  """Return vectors of length 1 in float32. Zero vectors are unchanged."""
  x_BD = x_BD.astype(jnp.float32)
  return x_BD * jax.lax.rsqrt(jnp.maximum(jnp.sum(x_BD * x_BD, -1, keepdims=True), 1e-24))
