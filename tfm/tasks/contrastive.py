"""Contrastive learning: match images with their texts."""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.tasks.arrays import array_features, array_specs, has_arrays
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, Task, weighted_sum
from tfm.tasks.model import TaskModel


@dataclasses.dataclass(frozen=True)
class Contrastive(Task):
  """Contrastive loss of `logits_per_image` [B, B], with the matching pairs on the diagonal.

  Each example of a batch is a pair. The model outputs the scaled similarities (with SigLIP's bias).

  Attributes:
    objective: 'softmax' is the mean cross-entropy of choosing the text of an image and the image of
      a text (CLIP, arXiv:2103.00020). 'sigmoid' is a binary decision for each pair (SigLIP,
      arXiv:2303.15343).
  """

  objective: Literal['softmax', 'sigmoid'] = 'softmax'

  targets = ('weights',)
  shown = Shown('loss', 'loss (nats per pair)')
  logged = ('image_to_text', 'text_to_image')
  loss_per_example = False

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    del dataset
    return array_features(raw)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    return array_specs(data)

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss', and the retrieval accuracies 'image_to_text' and 'text_to_image'.

    Retrieval is within the batch. Padding examples of weight 0, which complete the last batch of an
    evaluation, are neither matched nor used as negatives.
    """
    del key
    logits_IT = forward(**self.inputs(batch))['logits_per_image'].astype(jnp.float32)
    weights_B = (batch['weights'] > 0).astype(jnp.float32)
    weight = jnp.sum(weights_B)
    pair_IT = weights_B[:, None] * weights_B[None, :]
    matched_IT = jnp.where(pair_IT > 0, logits_IT, -jnp.inf)
    right = jnp.arange(len(logits_IT))
    # The logits of a padding example are all -inf. Its argmax and its loss have weight 0.
    to_text, to_image = jnp.argmax(matched_IT, 1) == right, jnp.argmax(matched_IT, 0) == right
    loss_fn = _softmax if self.objective == 'softmax' else _sigmoid
    loss_B = loss_fn(logits_IT, pair_IT)
    return {
      'loss': Ratio(weighted_sum(loss_B, weights_B), weight),
      'image_to_text': Ratio(jnp.sum(to_text * weights_B), weight),
      'text_to_image': Ratio(jnp.sum(to_image * weights_B), weight),
    }

  def fits(self, model: TaskModel) -> Iterator[str]:
    if 'logits_per_image' not in model.returns:
      yield (
        'task: contrastive needs logits_per_image, and no head returns it. Expected '
        'model.heads..=similarity.'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from has_arrays('contrastive', data, 'pixel_values', 'input_ids')


def choice_loss(logits_IT: jax.Array, pair_IT: jax.Array) -> jax.Array:
  """Return the cross-entropy of choosing the text of each image, [B].

  Args:
    logits_IT: The similarities. Matching pairs are on the diagonal.
    pair_IT: 0 for pairs with a padding example, which cannot be chosen.

  Returns:
    The loss of each image. Swap the axes for the loss of each text.
  """
  # With -inf, padding examples would have NaN gradients.
  masked_IT = jnp.where(pair_IT > 0, logits_IT, -1e30)
  return jax.nn.logsumexp(masked_IT, 1) - jnp.diagonal(logits_IT)


def _softmax(logits_IT: jax.Array, pair_IT: jax.Array) -> jax.Array:
  """Return the mean of both cross-entropies for each pair, [B]."""
  return (choice_loss(logits_IT, pair_IT) + choice_loss(logits_IT.T, pair_IT.T)) / 2


def _sigmoid(logits_IT: jax.Array, pair_IT: jax.Array) -> jax.Array:
  """Return the sum of the binary losses of each image with all texts, [B]."""
  sign_IT = 2 * jnp.eye(len(logits_IT)) - 1
  return -jnp.sum(jnp.where(pair_IT > 0, jax.nn.log_sigmoid(sign_IT * logits_IT), 0.0), 1)
