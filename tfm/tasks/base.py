"""The interface of a training task: the features of a batch, its losses and metrics."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from tfm.core.registry import Part
from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.tasks.model import TaskModel

Features = dict[str, NDArray[Any]]
Batch = dict[str, jax.Array]
Outputs = dict[str, Any]


class Generate(Protocol):
  """Sampling from the current parameters. The random key is the same for equal calls."""

  def __call__(self, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    """Return the new tokens of each prompt, with options of `tfm.generate`."""
    ...


class Forward(Protocol):
  """The forward passes of a step. `tfm.train.forward.Forward` is one."""

  def __call__(self, **inputs: Any) -> Outputs:
    """Return the outputs of `tfm.apply` for the trained model."""
    ...

  def model(self, name: str) -> Callable[..., Outputs]:
    """Return the forward pass of a model of `Task.models`, without dropout or gradient."""
    ...


class Recorder:
  """The forward passes of a step, which keeps the outputs of the last one.

  Args:
    forward: The forward passes.
    call: Replaces the forward pass of the trained model. None keeps it.

  Attributes:
    out: The outputs of the last forward pass of the trained model.
  """

  def __init__(self, forward: Forward, call: Callable[..., Outputs] | None = None):
    self._forward = forward
    self._call = forward if call is None else call
    self.out: Outputs = {}

  def __call__(self, **inputs: Any) -> Outputs:
    self.out = self._call(**inputs)
    return self.out

  def model(self, name: str) -> Callable[..., Outputs]:
    """Return the forward pass of a model of `Task.models`."""
    return self._forward.model(name)


class Ratio(NamedTuple):
  """A metric as two scalars, with the value `sum / weight`.

  Ratios of micro-batches and hosts can be added exactly.

  Attributes:
    sum: The weighted sum of the values.
    weight: The sum of the weights.
  """

  sum: jax.Array
  weight: jax.Array


class Shown(NamedTuple):
  """The metric of the progress bar and the training curve.

  Attributes:
    name: Its name in the metrics.
    label: Its label, with the unit.
  """

  name: str
  label: str


@dataclasses.dataclass(frozen=True)
class Task(Part):
  """A training objective.

  A task calls the model itself, so it may run several forward passes in a step.
  """

  #: Feature arrays that are not inputs of the model.
  targets: ClassVar[tuple[str, ...]] = ('labels', 'weights')

  #: The metric of the progress bar and the curve. `logged` are further metrics in each line of
  #: training metrics.
  shown: ClassVar[Shown] = Shown('loss', 'loss')
  logged: ClassVar[tuple[str, ...]] = ()

  #: False if the loss of an example depends on the other examples of its batch. Such a loss cannot
  #: be accumulated over micro-batches.
  loss_per_example: ClassVar[bool] = True

  #: Whether batches are made from samples of the current parameters (`rollout`), not by `features`.
  samples: ClassVar[bool] = False

  #: `picture(dataset, raw, outputs)` returns (image [H, W, 3] from 0 to 1, caption) pairs of an
  #: evaluation batch.
  picture: ClassVar[Callable[..., list[tuple[NDArray[Any], str]]] | None] = None

  def models(self, init_from: str) -> dict[str, str]:
    """Return the folders of further models by name. `forward.model(name)` calls them.

    Their parameters are constants of the run: they have no gradient and are not in checkpoints.

    Args:
      init_from: The folder of the model that training starts from, or ''.

    Returns:
      The folder of each model, '' where none is given. Empty by default.
    """
    del init_from
    return {}

  def fits_models(self, model: TaskModel, models: Mapping[str, TaskModel]) -> Iterator[str]:
    """Yield a message for each error in the further `models` of the task."""
    for name, other in models.items():
      if other.vocab != model.vocab:
        yield (
          f'task.{name}: has a table of {other.vocab} tokens, and the model has {model.vocab}. '
          'Expected models of one vocabulary.'
        )

  @property
  def adds_special_tokens(self) -> bool:
    """Whether the task adds the special tokens of a prompt to texts."""
    return False

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    """Return the model inputs and targets of a raw batch.

    This is a pure function on the host, with randomness from `raw['key']`. All batches of a dataset
    have the same names, shapes and dtypes. `weights` is 0 for padding examples, which complete the
    last batch.
    """
    raise NotImplementedError

  @property
  def steps_per_rollout(self) -> int:
    """Updates with the same samples, if the task `samples`."""
    return 1

  def rollout(self, raw: Raw, dataset: Dataset, generate: Generate) -> Features:
    """Return the features of a raw batch, with samples of the current parameters.

    Args:
      raw: The raw batch.
      dataset: The open data.
      generate: Returns new tokens of the model for prompts.

    Returns:
      The features.
    """
    raise NotImplementedError

  def measure_rollout(self, forward: Forward, batch: Batch) -> Batch:
    """Return further features of a rollout, from the parameters that generated it."""
    del forward, batch
    return {}

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return the metrics of a batch. 'loss' is required, and minimised.

    Args:
      forward: `forward(**inputs)` returns the outputs of `tfm.apply`. It may be called any number
        of times. The auxiliary losses of all calls are added to 'loss', times its weight.
      batch: The features on the devices.
      key: Randomness of the task itself. None in evaluation, where a task may return further
        metrics.

    Returns:
      The ratio of each metric.
    """
    raise NotImplementedError

  def measures(self, batch: Batch, dataset: Dataset) -> dict[str, Ratio]:
    """Return evaluation metrics that need the dataset instead of the model. None by default."""
    del batch, dataset
    return {}

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    """Return the metrics of an evaluation from the total (sum, weight) of each ratio."""
    scores: dict[str, float | None] = {}
    for name, (total, weight) in sums.items():
      scores[name] = total / weight if weight else None
    return scores

  def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of a batch that are inputs of the model."""
    return {name: value for name, value in batch.items() if name not in self.targets}

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    """Return shape, dtype and axis letters of each feature. No data is opened."""
    raise NotImplementedError

  def shapes(self, model: TaskModel, data: Data) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the features as `jax.ShapeDtypeStruct`s. No data is opened."""
    specs = self.specs(model, data)
    return {name: jax.ShapeDtypeStruct(s.shape, s.dtype) for name, s in specs.items()}

  def letters(self, model: TaskModel, data: Data) -> dict[str, str]:
    """Return the axis letters of each feature, such as 'BT' or 'BCHW'."""
    return {name: spec.letters for name, spec in self.specs(model, data).items()}

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    """Return the tokens of a sequence in each tower: (decoder,) or (encoder, decoder).

    Empty if the data is not text.
    """
    del data
    return ()

  def by_task(self, data: Data) -> list[tuple['Task', Data]]:
    """Return the tasks of a step with their data: this one, or the parts of several tasks."""
    return [(self, data)]

  def per_step(self, data: Data) -> tuple[str, int]:
    """Return the unit of throughput and its number in a global step, such as ('tokens', 4096)."""
    lengths = self.sequence_lengths(data)
    return ('tokens', data.batch * sum(lengths)) if lengths else ('examples', data.batch)

  def fits(self, model: TaskModel) -> Iterator[str]:
    """Yield a message for each reason why `model` cannot be trained on this task."""
    raise NotImplementedError

  def fits_data(self, data: Data) -> Iterator[str]:
    """Yield a message for each reason why this task cannot use `data`."""
    del data
    yield from ()

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    """Yield a message for each error in `model` that can be found only with the open dataset."""
    del model, dataset
    yield from ()


def weighted_sum(x: jax.Array, weights: jax.Array) -> jax.Array:
  """Return sum(x * weights). Entries of weight 0 are ignored, even if they are not finite."""
  return jnp.sum(jnp.where(weights > 0, x * weights, 0.0))


def mean(total: jax.Array, weight: jax.Array) -> jax.Array:
  """Return total / weight, or 0 where the weight is 0."""
  return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)
