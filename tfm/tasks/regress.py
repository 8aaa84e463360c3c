"""Regression: predict numbers."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tfm.data.base import Data
from tfm.data.corpus import Corpus
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.data.textdata import TextData
from tfm.tasks.arrays import array_features, array_specs, has_arrays
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, weighted_sum
from tfm.tasks.framed import FramedTask, framed_specs
from tfm.tasks.model import TaskModel
from tfm.tasks.text import vocabulary_fits


@dataclasses.dataclass(frozen=True)
class Regress(FramedTask):
  """Mean squared error of float `labels` with the shape of the model's output.

  Examples are arrays, or texts with a number each (`data=labelled_text(numbers=true)`) for a head
  such as `classify(labels=1)`. The labels may lack a last axis of size 1: [B] for an output [B, 1].

  Attributes:
    output: Name of the model output that holds the predictions.
  """

  output: str = 'logits'

  shown = Shown('loss', 'mean squared error')
  logged = ('mean_absolute_error',)

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
    """Return 'loss' (mean squared error) and 'mean_absolute_error' per number.

    `weights` has the leading axes of the labels: [B], or [B, T] for labels [B, T, ...].
    """
    del key
    output, labels = forward(**self.inputs(batch))[self.output], batch['labels']
    if output.ndim == labels.ndim + 1 and output.shape[-1] == 1:
      output = output[..., 0]
    assert output.shape == labels.shape, f'{self.output} {output.shape} for labels {labels.shape}'
    error = output.astype(jnp.float32) - labels.astype(jnp.float32)
    weights = batch['weights'].astype(jnp.float32)
    weights = weights.reshape(*weights.shape, *(1,) * (error.ndim - weights.ndim))
    weights = jnp.broadcast_to(weights, error.shape)
    weight = jnp.sum(weights)
    return {
      'loss': Ratio(weighted_sum(jnp.square(error), weights), weight),
      'mean_absolute_error': Ratio(weighted_sum(jnp.abs(error), weights), weight),
    }

  def fits(self, model: TaskModel) -> Iterator[str]:
    if self.output not in model.returns:
      known = ', '.join(sorted(model.returns)) or 'none'
      yield (
        f'task.output: no head returns {self.output!r}. Expected an output of the model ({known}), '
        'or a head such as regress.'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    if not isinstance(data, TextData):
      yield from has_arrays('regress', data, 'labels')
      return
    labels = data.specs().get('labels')
    if labels is None or not np.issubdtype(labels.dtype, np.floating):
      yield (
        'task: regress needs a number for each text, and the data has none. Expected '
        'data=labelled_text(numbers=true).'
      )

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    if isinstance(dataset, Corpus):
      yield from vocabulary_fits(model, dataset)
