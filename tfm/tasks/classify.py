"""Classification of texts, images or other inputs."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.data.base import Data
from tfm.data.corpus import Corpus
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.data.textdata import TextData
from tfm.tasks.arrays import array_features, array_specs
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, weighted_sum
from tfm.tasks.framed import FramedTask, framed_specs
from tfm.tasks.model import TaskModel
from tfm.tasks.text import vocabulary_fits
from tfm.tasks.xent import CrossEntropy, cross_entropy

#: Images that are drawn with their predictions.
_PICTURES = 16


@dataclasses.dataclass(frozen=True)
class Classify(FramedTask):
  """Cross-entropy of one class per example.

  Labels are class numbers int [B], or probabilities [B, classes] (from mixup).

  Attributes:
    label_smoothing: Probability spread evenly over all classes.
  """

  label_smoothing: float = 0.0

  shown = Shown('loss_nats', 'loss (nats per example)')
  logged = ('accuracy',)

  @staticmethod
  def upgrade(stored: dict[str, Any]) -> dict[str, Any]:
    """Remove the fields of earlier versions that had no effect."""
    unused = {'smooth_gold': True, 'z_loss': 0.0, 'mtp': stored.get('mtp')}
    used = {name: value for name, value in stored.items() if name not in unused}
    changed = {n: stored[n] for n, default in unused.items() if stored.get(n, default) != default}
    return used | changed

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    if 'tokens' not in raw:
      return array_features(raw)
    return self.text_features(raw, dataset) | {'labels': raw['labels']}

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    if not isinstance(data, TextData):
      return array_specs(data)
    return framed_specs(data) | {'labels': data.specs()['labels']}

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss' (minimised), 'loss_nats' (without label smoothing) and 'accuracy' (top-1).

    All are means over examples. In evaluation, 'loss' has no label smoothing either.
    """
    logits, labels = forward(**self.inputs(batch))['logits'], batch['labels']
    entropy = cross_entropy if labels.ndim == 1 else soft_cross_entropy
    ce = entropy(logits, labels, self.label_smoothing)
    weights_B = batch['weights'].astype(jnp.float32)
    weight = jnp.sum(weights_B)
    return {
      'loss': Ratio(weighted_sum(ce.nll if key is None else ce.loss, weights_B), weight),
      'loss_nats': Ratio(weighted_sum(ce.nll, weights_B), weight),
      'accuracy': Ratio(weighted_sum(ce.correct, weights_B), weight),
    }

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    return super().score({name: sums[name] for name in ('loss_nats', 'accuracy')})

  def picture(
    self, dataset: Dataset, raw: Raw, outputs: dict[str, Any]
  ) -> list[tuple[NDArray[Any], str]]:
    """Return images with their predicted and true classes.

    Args:
      dataset: The open data.
      raw: A raw batch. Its images are `pixel_values` [B, C, H, W].
      outputs: The outputs of the model, with `logits`.

    Returns:
      (image [H, W, 3] from 0 to 1, caption) pairs, empty without images.
    """
    if 'pixel_values' not in raw:
      return []
    predicted = np.asarray(outputs['logits']).argmax(-1)
    labels = raw['labels'] if raw['labels'].ndim == 1 else raw['labels'].argmax(-1)
    names = list(dataset.names) or [str(label) for label in range(outputs['logits'].shape[-1])]
    pictures = []
    for i in np.flatnonzero(raw.get('weights', np.ones(len(labels))))[:_PICTURES]:
      caption = _caption(names[predicted[i]], names[labels[i]])
      pictures.append((_visible(raw['pixel_values'][i]), caption))
    return pictures

  def fits(self, model: TaskModel) -> Iterator[str]:
    if model.classifier is None or not model.classifier.labels or model.classifier.pick == 'each':
      yield (
        'task: classify needs a head that classifies whole inputs, and the model has none. '
        'Expected model.heads.classify with labels and a pick other than each.'
      )
    if model.lm is not None or model.encoder is not None:
      yield (
        'task: classify needs one tower without a language-model head. Expected '
        'model.heads.lm=none.'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    labels = data.specs().get('labels')
    if labels is None:
      yield (
        'task: classify needs labels, and the data has none. Expected a source with labels, such '
        'as data=folders.'
      )
    elif len(labels.shape) == 1 and np.issubdtype(labels.dtype, np.floating):
      yield (
        'task: classify needs classes, and the labels of the data are numbers. Expected '
        'task=regress, or data.numbers=False.'
      )
    if isinstance(data, TextData) and data.length < 3:
      yield (
        f'data.length: {data.length} tokens do not fit a text and its special tokens. Expected 3 '
        'or more.'
      )

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    if isinstance(dataset, Corpus):
      yield from vocabulary_fits(model, dataset)
    labels, n = model.classifier.labels if model.classifier else 0, len(dataset.names)
    if labels != n:
      yield (
        f'model.heads.classify.labels: is {labels}, but the data has {n} classes '
        f'({", ".join(dataset.names)}). Expected {n}.'
      )

  def check(self) -> Iterator[str]:
    if not 0 <= self.label_smoothing < 1:
      yield f'label_smoothing: is {self.label_smoothing}. Expected 0 or more, below 1.'


def soft_cross_entropy(
  logits_BV: jax.Array, target_BV: jax.Array, label_smoothing: float = 0.0
) -> CrossEntropy:
  """Return the cross-entropy of target probabilities.

  Args:
    logits_BV: The logits.
    target_BV: The probability of each class. Rows add up to 1.
    label_smoothing: Probability spread evenly over all classes.

  Returns:
    The losses, and whether the top classes agree, float32 [B].
  """
  log_p_BV = jax.nn.log_softmax(logits_BV.astype(jnp.float32), -1)
  target_BV = target_BV.astype(jnp.float32)
  smooth_BV = target_BV * (1 - label_smoothing) + label_smoothing / logits_BV.shape[-1]
  correct_B = jnp.argmax(logits_BV, -1) == jnp.argmax(target_BV, -1)
  nll_B = jax.lax.stop_gradient(-jnp.sum(target_BV * log_p_BV, -1))
  return CrossEntropy(-jnp.sum(smooth_BV * log_p_BV, -1), nll_B, correct_B.astype(jnp.float32))


def _visible(pixels_CHW: NDArray[Any]) -> NDArray[Any]:
  """Return an image [H, W, 3] rescaled to the range from 0 to 1."""
  image = np.moveaxis(np.asarray(pixels_CHW, np.float32), 0, -1)
  image = np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[-1] == 1 else image[..., :3]
  low, high = image.min(), image.max()
  return (image - low) / max(high - low, 1e-6)


def _caption(predicted: str, label: str) -> str:
  return predicted if predicted == label else f'{predicted} (is {label})'
