"""Several objectives in one run, each with its own rows of the batch."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core.frozen import FrozenMap
from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.data.several import SeveralDatasets, SeveralSources
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, Task, mean
from tfm.tasks.model import TaskModel


@dataclasses.dataclass(frozen=True)
class SeveralTasks(Task):
  """The weighted sum of the mean losses of several tasks.

  Each task has its own source in `data=several`, a fixed number of rows of each batch and its own
  forward pass. The metrics of task `lm` are `loss/lm`, `accuracy/lm`, ....

  Attributes:
    parts: The tasks by name.
    weights: The weight of the loss of each task. The default is 1. A task of weight 0 is only
      measured.
  """

  parts: Mapping[str, Task] = FrozenMap()
  weights: Mapping[str, float] = FrozenMap()

  shown = Shown('loss', 'loss (weighted sum)')
  #: The mean losses of the tasks are added, so a micro-batch is not a sum over examples.
  loss_per_example = False

  def __post_init__(self) -> None:
    object.__setattr__(self, 'parts', FrozenMap(self.parts))
    object.__setattr__(self, 'weights', FrozenMap(self.weights))

  @property
  def logged(self) -> tuple[str, ...]:  # type: ignore[override]
    """The main metrics of each task, for each line of training metrics."""
    names: list[str] = []
    for name, task in self.parts.items():
      main = dict.fromkeys(('loss', task.shown.name, *task.logged))
      names += [f'{metric}/{name}' for metric in main]
    return tuple(names)

  def weight(self, name: str) -> float:
    """Return the weight of the loss of a task."""
    return self.weights.get(name, 1.0)

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    assert isinstance(dataset, SeveralDatasets)
    features: Features = {}
    for name, task in self.parts.items():
      own = task.features(_of(name, raw), dataset.datasets[name])
      features |= _prefixed(name, own)
    return features

  def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of the first task that are inputs of the model."""
    name, task = next(iter(self.parts.items()))
    return task.inputs(_of(name, batch))

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    specs: dict[str, ArraySpec] = {}
    for name, (task, part) in self._pairs(data).items():
      specs |= _prefixed(name, task.specs(model, part))
    return specs

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss', the weighted sum of the mean losses, and the metrics of each task.

    Args:
      forward: Each task calls it for its own rows.
      batch: The features of all tasks.
      key: Randomness of the tasks. None in evaluation.

    Returns:
      The ratio of each metric.
    """
    total: jax.Array = jnp.zeros(())
    ratios: dict[str, Ratio] = {}
    for i, (name, task) in enumerate(self.parts.items()):
      own_key = None if key is None else jax.random.fold_in(key, i)
      own = task.loss(forward, _of(name, batch), own_key)
      ratios |= _prefixed(name, own, suffix=True)
      total += self.weight(name) * mean(*own['loss'])
    return {'loss': Ratio(total, jnp.ones(())), **ratios}

  def measures(self, batch: Batch, dataset: Dataset) -> dict[str, Ratio]:
    assert isinstance(dataset, SeveralDatasets)
    ratios: dict[str, Ratio] = {}
    for name, task in self.parts.items():
      own = task.measures(_of(name, batch), dataset.datasets[name])
      ratios |= _prefixed(name, own, suffix=True)
    return ratios

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    """Return the metrics of each task, and 'loss', the weighted sum of their mean losses."""
    scores: dict[str, float | None] = {}
    losses = []
    for name, task in self.parts.items():
      own = {m.removesuffix(f'/{name}'): v for m, v in sums.items() if m.endswith(f'/{name}')}
      scores |= _prefixed(name, task.score(own), suffix=True)
      total, weight = own['loss']
      losses.append(self.weight(name) * total / weight if weight else None)
    known = [loss for loss in losses if loss is not None]
    return {'loss': sum(known) if len(known) == len(losses) else None, **scores}

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    """Return the longest sequence of each tower, over all tasks. Empty without text."""
    lengths = [task.sequence_lengths(part) for task, part in self._pairs(data).values()]
    towers = max(map(len, lengths), default=0)
    longest = []
    for tower in range(towers):
      # The decoder is the last tower, and all tasks have it.
      longest.append(max(own[tower - towers] for own in lengths if len(own) >= towers - tower))
    return tuple(longest)

  def per_step(self, data: Data) -> tuple[str, int]:
    amounts = [task.per_step(part) for task, part in self._pairs(data).values()]
    if {unit for unit, _ in amounts} == {'tokens'}:
      return 'tokens', sum(amount for _, amount in amounts)
    return 'examples', data.batch

  def by_task(self, data: Data) -> list[tuple[Task, Data]]:
    return list(self._pairs(data).values())

  def fits(self, model: TaskModel) -> Iterator[str]:
    for name, task in self.parts.items():
      for message in task.fits(model):
        yield message.replace('task', f'task.parts.{name}', 1)

  def fits_data(self, data: Data) -> Iterator[str]:
    if not isinstance(data, SeveralSources) or set(data.parts) != set(self.parts):
      yield (
        f'task: several has the parts {", ".join(self.parts)}. Expected data=several with a source '
        'for each.'
      )
      return
    for name, (task, part) in self._pairs(data).items():
      for message in task.fits_data(part):
        yield message.replace('data.', f'data.parts.{name}.', 1)

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    assert isinstance(dataset, SeveralDatasets)
    messages = (
      message
      for name, task in self.parts.items()
      for message in task.suits(model, dataset.datasets[name])
    )
    yield from dict.fromkeys(messages)

  def check(self) -> Iterator[str]:
    if not self.parts:
      yield 'parts: is empty. Expected tasks, as in parts={lm: causal_lm, mlm: masked_lm}.'
    for name in self.parts:
      if not name or '/' in name:
        yield f'parts: has {name!r}. Expected a name without slashes.'
    for name, weight in self.weights.items():
      if name not in self.parts:
        yield f'weights: {name} is no part. Expected {", ".join(self.parts)}.'
      if not 0 <= weight < float('inf'):
        yield f'weights: {name} is {weight}. Expected a finite number of 0 or more.'
    if self.parts and not any(self.weight(name) for name in self.parts):
      yield 'weights: are all 0. Expected a positive weight.'

  def _pairs(self, data: Data) -> dict[str, tuple[Task, Data]]:
    assert isinstance(data, SeveralSources)
    return {name: (task, data.part(name)) for name, task in self.parts.items()}


def _of(name: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Return the arrays of a part, without its name."""
  prefix = f'{name}/'
  return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _prefixed(name: str, values: Mapping[str, Any], suffix: bool = False) -> dict[str, Any]:
  """Return values with the name of their part before their names, or after them."""
  if suffix:
    return {f'{n}/{name}': value for n, value in values.items()}
  return {f'{name}/{n}': value for n, value in values.items()}
