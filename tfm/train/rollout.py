"""Batches of samples from the current parameters, for tasks that learn from them."""

from collections.abc import Callable
import functools
from typing import Any

import jax

from tfm.core import errors
from tfm.data.dataset import Dataset, Raw
from tfm.data.tokenizer import Vocabulary
from tfm.tasks import Features
from tfm.train import shard
from tfm.train.build import Built
from tfm.train.experiment import Experiment
from tfm.train.step import Batch, rollout_key

#: `(experiment, parameters, vocabulary, prompts, key, **options) -> new tokens of each prompt`. The
#: caller passes it, because training does not import decoding.
Complete = Callable[..., list[list[int]]]


def features(
  x: Experiment, dataset: Dataset, complete: Complete, params: Any, raw: Raw, key: jax.Array
) -> Features:
  """Return the features of a raw batch, with samples of `params`.

  Args:
    x: The experiment.
    dataset: The open data.
    complete: Generates the samples.
    params: The parameters, which are not copied.
    raw: The raw batch.
    key: The random key of the samples.

  Returns:
    The features, as `Task.rollout` returns them.
  """
  generate = functools.partial(_completed, x, dataset.vocabulary, complete, params, key)
  return x.task.rollout(raw, dataset, generate)


def _completed(
  x: Experiment,
  vocabulary: Vocabulary | None,
  complete: Complete,
  params: Any,
  key: jax.Array,
  prompts: list[list[int]],
  **options: Any,
) -> list[list[int]]:
  return complete(x, params, vocabulary, prompts, key, **options)


def check(x: Experiment, complete: Complete | None) -> None:
  """Raise an error if a task needs samples, and this run cannot generate them."""
  if not x.task.samples:
    return
  assert complete is not None, 'the task learns from samples, which need the argument complete'
  if jax.process_count() > 1:
    name = x.task.table().name_of(x.task)
    raise errors.UserError(
      f'task: {name} generates samples, which needs all devices in one process (there are '
      f'{jax.process_count()}). Expected a run of one process.'
    )


def scored(
  x: Experiment, dataset: Dataset, complete: Complete | None, params: Any
) -> Callable[[Raw], Features] | None:
  """Return `raw -> features` for the evaluation of a task with samples, else None.

  The samples have other keys than in training.
  """
  check(x, complete)
  if not x.task.samples or complete is None:
    return None
  key = lambda raw: rollout_key(x.seed, int(raw['sample'][0]), training=False)
  return lambda raw: features(x, dataset, complete, params, raw, key(raw))


class Rollouts:
  """The batches of a run. Each is used for `steps_per_rollout` updates.

  Samples depend only on the parameters, the seed and the step. So a run that continues from a
  checkpoint has the same batches.

  Args:
    x: The experiment.
    built: Its compiled functions.
    dataset: The open data.
    complete: Generates the samples.
  """

  def __init__(self, x: Experiment, built: Built, dataset: Dataset, complete: Complete):
    self._x, self._built, self._dataset, self._complete = x, built, dataset, complete
    self._batch: Batch | None = None

  def batch(self, step: int, params: Any, raw: Raw) -> Batch:
    """Return the batch of the update after `step` on the devices.

    Args:
      step: The number of updates.
      params: The parameters after them.
      raw: The raw batch.

    Returns:
      The features. They are generated at multiples of `steps_per_rollout`, and at the first call.
    """
    if self._batch is None or step % self._x.task.steps_per_rollout == 0:
      key = rollout_key(self._x.seed, int(raw['sample'][0]))
      found = features(self._x, self._dataset, self._complete, params, raw, key)
      size = len(next(iter(found.values())))
      batch = shard.put(found, self._built.batch.shardings, size, slice(0, size))
      self._batch = batch | self._built.measure_rollout(params, batch)
    return self._batch
