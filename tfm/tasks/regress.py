"""Predict numbers."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.tasks.arrays import array_features, array_specs, has_arrays
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, Task, weighted_sum


@dataclasses.dataclass(frozen=True)
class Regress(Task):
  """Mean squared error of the float `labels`, which have the shape of the model's output.

  A last axis of size 1 may be missing from the labels: [B] for an output [B, 1].

  Args:
    output: Name of the output of the model that holds the predictions.
  """

  output: str = 'logits'

  shown = Shown('loss', 'mean squared error')
  logged = ('mean_absolute_error',)

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    del dataset
    return array_features(raw)

  def specs(self, model: Any, data: Data) -> dict[str, ArraySpec]:
    del model
    return array_specs(data)

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss' (mean squared error) and 'mean_absolute_error', per number.

    `weights` are of the leading axes of the labels: [B], or [B, T] for labels [B, T, ...].
    """
    del key
    found, labels = forward(**self.inputs(batch))[self.output], batch['labels']
    if found.ndim == labels.ndim + 1 and found.shape[-1] == 1:
      found = found[..., 0]
    assert found.shape == labels.shape, f'{self.output} {found.shape} for labels {labels.shape}'
    error = found.astype(jnp.float32) - labels.astype(jnp.float32)
    weights = batch['weights'].astype(jnp.float32)
    weights = jnp.broadcast_to(
      weights.reshape(*weights.shape, *(1,) * (error.ndim - weights.ndim)), error.shape
    )
    weight = jnp.sum(weights)
    return {
      'loss': Ratio(weighted_sum(jnp.square(error), weights), weight),
      'mean_absolute_error': Ratio(weighted_sum(jnp.abs(error), weights), weight),
    }

  def fits(self, model: Any) -> Iterator[str]:
    if self.output not in model.returns:
      known = ', '.join(sorted(model.returns)) or 'none'
      yield f'task.output: no head returns {self.output!r}. Known outputs: {known}. Expected a head such as regress.'

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from has_arrays('regress', data, 'labels')
