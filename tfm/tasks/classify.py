"""Classify whole rows: texts, images, or any other input."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Raw
from tfm.data.textdata import TextData
from tfm.tasks.arrays import array_features, array_specs
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, Task, weighted_sum
from tfm.tasks.text import vocabulary_fits
from tfm.tasks.xent import CrossEntropy, cross_entropy

#: Images that are drawn with their predictions.
_PICTURES = 16


@dataclasses.dataclass(frozen=True)
class Classify(Task):
  """Cross-entropy of a class per row, of integer labels [B] or of probabilities [B, classes]
  (mixup).

  Args:
    label_smoothing: Probability spread over all classes.
    framed: A row of text has the special tokens that a published tokenizer puts around a prompt
      ([CLS] ... [SEP] for BERT, only the begin token for Llama). With a learnt tokenizer it begins
      with 'cls' and ends with 'eos'.
  """

  label_smoothing: float = 0.0
  framed: bool = True

  shown = Shown('loss_nats', 'loss (nats per example)')
  logged = ('accuracy',)
  overlap = 0

  @staticmethod
  def upgrade(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the stored fields without those that earlier versions had, where they changed nothing."""
    idle = {'smooth_gold': True, 'z_loss': 0.0, 'mtp': stored.get('mtp')}
    return {
      name: value for name, value in stored.items() if name not in idle or value != idle[name]
    }

  @property
  def frames_rows(self) -> bool:
    return self.framed

  def window(self, length: int) -> int:
    """Return the number of raw tokens that make a model row of `length`, for a learnt tokenizer."""
    return length - 2 * self.framed

  def lengths(self, length: int) -> tuple[int, ...]:
    """Return the tokens of a row of text."""
    return (length,)

  def specials(self, length: int) -> tuple[str, ...]:
    """Return the names of the special tokens in rows of text."""
    del length
    return ('cls', 'eos') if self.framed else ()

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    return self.lengths(data.length) if isinstance(data, TextData) else ()

  def features(self, raw: Raw, dataset: Any) -> Features:
    if 'tokens' not in raw:
      return array_features(raw)
    tokens, mask = raw['tokens'], (raw['segments'] > 0).astype(np.int32)
    rows = (mask[:, 0] > 0).astype(np.float32)
    if self.framed:
      tokens, mask = _framed(tokens, mask, *dataset.frame)
    return {
      'input_ids': tokens * mask,
      'attention_mask': mask,
      'labels': raw['labels'],
      'weights': rows,
    }

  def specs(self, model: Any, data: Data) -> dict[str, ArraySpec]:
    if not isinstance(data, TextData):
      return array_specs(data)
    row = ArraySpec((data.batch, data.length), np.int32, 'BT')
    labels = data.specs()['labels']
    return {
      'input_ids': row,
      'attention_mask': row,
      'labels': labels,
      'weights': labels._replace(dtype=np.float32),
    }

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss' (minimised), 'loss_nats' (without label smoothing) and 'accuracy' (top-1), per
    row.

    In evaluation 'loss' is without label smoothing, too.
    """
    logits, labels = forward(**self.inputs(batch))['logits'], batch['labels']
    found = (
      cross_entropy(logits, labels, self.label_smoothing)
      if labels.ndim == 1
      else soft_cross_entropy(logits, labels, self.label_smoothing)
    )
    weights_B = batch['weights'].astype(jnp.float32)
    weight = jnp.sum(weights_B)
    return {
      'loss': Ratio(weighted_sum(found.nll if key is None else found.loss, weights_B), weight),
      'loss_nats': Ratio(weighted_sum(found.nll, weights_B), weight),
      'accuracy': Ratio(weighted_sum(found.correct, weights_B), weight),
    }

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    return super().score({name: sums[name] for name in ('loss_nats', 'accuracy')})

  def picture(self, dataset: Any, raw: Raw, outputs: dict[str, Any]) -> list[tuple[NDArray, str]]:
    """Return images with their predicted and true classes. Images are `pixel_values` [B, C, H, W]."""
    if 'pixel_values' not in raw:
      return []
    said = np.asarray(outputs['logits']).argmax(-1)
    labels = raw['labels'] if raw['labels'].ndim == 1 else raw['labels'].argmax(-1)
    names = list(dataset.names) or [str(label) for label in range(outputs['logits'].shape[-1])]
    real = np.flatnonzero(raw.get('weights', np.ones(len(labels))))[:_PICTURES]
    return [
      (_visible(raw['pixel_values'][i]), _caption(names[said[i]], names[labels[i]])) for i in real
    ]

  def fits(self, model: Any) -> Iterator[str]:
    if model.classifier is None or not model.classifier.labels or model.classifier.pick == 'each':
      yield (
        'task: classify needs a classifier of whole rows, and the model has none. '
        'Expected model.heads.classify with labels and a pick other than each.'
      )
    if model.lm is not None or model.encoder is not None:
      yield 'task: classify needs one tower without a language-model head. Expected model.heads.lm=none.'

  def fits_data(self, data: Data) -> Iterator[str]:
    if 'labels' not in data.specs():
      yield 'task: classify needs labels, and the data has none. Expected a source with labels, such as data=folders.'
    if isinstance(data, TextData) and data.length < 3:
      yield f'data.length: {data.length} tokens have no room for a text and its special tokens. Expected 3 or more.'

  def suits(self, model: Any, dataset: Any) -> Iterator[str]:
    if dataset.vocabulary is not None:
      yield from vocabulary_fits(model, dataset)
    if (labels := model.classifier.labels) != (n := len(dataset.names)):
      yield f'model.heads.classify.labels: {labels} for data of {n} classes: {", ".join(dataset.names)}. Expected {n}.'

  def check(self) -> Iterator[str]:
    if not 0 <= self.label_smoothing < 1:
      yield f'label_smoothing: is {self.label_smoothing}. Expected 0 or more, below 1.'


def soft_cross_entropy(
  logits_BV: jax.Array, target_BV: jax.Array, label_smoothing: float = 0.0
) -> CrossEntropy:
  """Return the cross-entropy of probabilities `target_BV`, float32 [B], and whether the top classes
  agree.
  """
  log_p_BV = jax.nn.log_softmax(logits_BV.astype(jnp.float32), -1)
  target_BV = target_BV.astype(jnp.float32)
  smooth_BV = target_BV * (1 - label_smoothing) + label_smoothing / logits_BV.shape[-1]
  correct_B = jnp.argmax(logits_BV, -1) == jnp.argmax(target_BV, -1)
  nll_B = jax.lax.stop_gradient(-jnp.sum(target_BV * log_p_BV, -1))
  return CrossEntropy(-jnp.sum(smooth_BV * log_p_BV, -1), nll_B, correct_B.astype(jnp.float32))


def _framed(
  tokens_BT: NDArray, mask_BT: NDArray, begin: tuple[int, ...], end: tuple[int, ...]
) -> tuple[NDArray, NDArray]:
  """Return rows of real tokens with tokens before and after, padded on the right, and their mask."""
  B, T = len(tokens_BT), tokens_BT.shape[1] + len(begin) + len(end)
  framed_BT = np.zeros((B, T), np.int32)
  framed_BT[:, : len(begin)] = begin
  framed_BT[:, len(begin) : len(begin) + tokens_BT.shape[1]] = tokens_BT
  after_B = len(begin) + mask_BT.sum(1)
  for i, token in enumerate(end):
    framed_BT[np.arange(B), after_B + i] = token
  return framed_BT, (np.arange(T) < (after_B + len(end))[:, None]).astype(np.int32)


def _visible(pixels_CHW: NDArray) -> NDArray:
  """Return an image [H, W, 3] that fills the range from 0 to 1: a normalised image has lost its
  scale.
  """
  image = np.moveaxis(np.asarray(pixels_CHW, np.float32), 0, -1)
  image = np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[-1] == 1 else image[..., :3]
  low, high = image.min(), image.max()
  return (image - low) / max(high - low, 1e-6)


def _caption(predicted: str, label: str) -> str:
  return predicted if predicted == label else f'{predicted} (is {label})'
