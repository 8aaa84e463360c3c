"""The contract of a training task: features of a batch, its losses and metrics."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from tfm.core.registry import Part
from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw

Features = dict[str, NDArray[Any]]
Batch = dict[str, jax.Array]
Outputs = dict[str, Any]
Forward = Callable[..., Outputs]


class Ratio(NamedTuple):
  """A metric as two scalars: its value is sum / weight. Ratios of micro-batches and hosts add up
  exactly.
  """

  sum: jax.Array
  weight: jax.Array


class Shown(NamedTuple):
  """The metric on the progress bar and the training curve, and its label with the unit."""

  name: str
  label: str


@dataclasses.dataclass(frozen=True)
class Task(Part):
  """A training objective. The task owns the forward pass, so it may run the model several times a
  step.
  """

  #: Feature arrays that are not inputs of the model.
  targets: ClassVar[tuple[str, ...]] = ('labels', 'weights')

  #: The metric of the progress bar and the curve. `logged` are further metrics in each line of
  #: training metrics.
  shown: ClassVar[Shown] = Shown('loss', 'loss')
  logged: ClassVar[tuple[str, ...]] = ()

  #: False if the loss of a row depends on the other rows of its batch. Such a loss cannot be
  #: accumulated.
  sums_over_rows: ClassVar[bool] = True

  #: `picture(dataset, raw, outputs)` returns (image [H, W, 3] from 0 to 1, caption) pairs of an
  #: evaluation batch.
  picture: ClassVar[Callable[..., list[tuple[NDArray, str]]] | None] = None

  @property
  def frames_rows(self) -> bool:
    """Whether the task puts the special tokens of a prompt around rows of text."""
    return False

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    """Return the model inputs and targets of a raw batch.

    A pure function on the host: randomness comes from `raw['key']`. Every batch of a dataset has
    the same names, shapes and dtypes. `weights` is 0 for rows that only fill up a batch."""
    raise NotImplementedError

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return the metrics of a batch; 'loss' is required and minimised.

    Args:
      forward: `forward(**inputs)` returns the outputs of `tfm.apply`. It may be called any number
        of times. The auxiliary losses of all calls are added to 'loss', times its weight.
      batch: The features on the devices.
      key: Randomness of the task itself. None in evaluation, where a task may return further
      metrics.
    """
    raise NotImplementedError

  def measures(self, batch: Batch, dataset: Dataset) -> dict[str, Ratio]:
    """Return ratios of an evaluation batch that need the dataset and not the model. None by
    default.
    """
    del batch, dataset
    return {}

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    """Return the metrics of an evaluation from the (sum, weight) of each ratio over all batches."""
    return {name: total / weight if weight else None for name, (total, weight) in sums.items()}

  def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of a batch that are inputs of the model."""
    return {name: value for name, value in batch.items() if name not in self.targets}

  def specs(self, model: Any, data: Data) -> dict[str, ArraySpec]:
    """Return shape, dtype and axis letters of every feature array. Opens no data."""
    raise NotImplementedError

  def shapes(self, model: Any, data: Data) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the features as `jax.ShapeDtypeStruct`s. Opens no data."""
    return {
      n: jax.ShapeDtypeStruct(spec.shape, spec.dtype) for n, spec in self.specs(model, data).items()
    }

  def letters(self, model: Any, data: Data) -> dict[str, str]:
    """Return the axis letters of every feature array, such as 'BT' or 'BCHW'."""
    return {name: spec.letters for name, spec in self.specs(model, data).items()}

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    """Return the tokens of a row in each stack: (decoder,) or (encoder, decoder). Empty if rows are
    not text.
    """
    del data
    return ()

  def per_step(self, data: Data) -> tuple[str, int]:
    """Return the unit of speed and its number in a step over all devices, such as ('tokens', 4096)."""
    lengths = self.sequence_lengths(data)
    return ('tokens', data.batch * sum(lengths)) if lengths else ('examples', data.batch)

  def fits(self, model: Any) -> Iterator[str]:
    """Yield a sentence for each reason that `model` cannot be trained on this task."""
    raise NotImplementedError

  def fits_data(self, data: Data) -> Iterator[str]:
    """Yield a sentence for each reason that this task cannot use `data`."""
    del data
    yield from ()

  def suits(self, model: Any, dataset: Dataset) -> Iterator[str]:
    """Yield a sentence for each error in `model` that only an open dataset can show."""
    del model, dataset
    yield from ()


def weighted_sum(x: jax.Array, weights: jax.Array) -> jax.Array:
  """Return sum(x * weights), where entries of weight 0 are ignored even if they are not finite."""
  return jnp.sum(jnp.where(weights > 0, x * weights, 0.0))


def mean(total: jax.Array, weight: jax.Array) -> jax.Array:
  """Return total / weight, and 0 where the weight is 0."""
  return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)
