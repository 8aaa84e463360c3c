"""The metrics of a task with 95% intervals over examples."""

from collections.abc import Callable, Sequence
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tfm.core.errors import UserError
from tfm.data.progress import Progress
from tfm.evaluate.bootstrap import Score, measure
from tfm.evaluate.metrics import Floats, Measured
from tfm.tasks import Task, TextTask
from tfm.train.build import build_eval
from tfm.train.evaluate import batches, count, open_checkpoint, open_dataset
from tfm.train.experiment import Experiment


def evaluate_losses(
  path: str | Path,
  split: str = 'val',
  change: Callable[[Experiment], Experiment] = lambda x: x,
  most: int | None = None,
  load: Callable[[str | Path], Any] | None = None,
  seed: int = 0,
) -> dict[str, Score]:
  """Return the metrics of `evaluate_checkpoint` with intervals.

  Examples are resampled: sequences of text, images, and so on.

  Args:
    path: See `tfm.train.evaluate.open_checkpoint`.
    split: Name of the split.
    change: See `open_checkpoint`.
    most: The maximum number of batches, spread evenly over the split. Defaults to all.
    load: See `open_checkpoint`.
    seed: The seed of the resampling.

  Returns:
    The scores by name, without unknown metrics.

  Raises:
    UserError: The loss of an example depends on other examples, no example has weight, or as
      `open_checkpoint`.
  """
  loaded, x, stored = open_checkpoint(path, change, load)
  if not x.task.loss_per_example:
    raise UserError(
      f'--intervals: the loss of {x.task.table().name_of(x.task)} needs whole batches. Expected '
      'no --intervals.'
    )
  dataset = open_dataset(path, loaded, x, stored)
  layout, batch_axis, eval_fn = build_eval(x, jax.devices()[:1])

  def one(params: Any, example: Any) -> Any:
    batch = jax.tree.map(lambda array: array[None], example)
    return {**eval_fn(params, batch), **x.task.measures(batch, dataset)}

  each, found = jax.jit(jax.vmap(one, (None, 0))), []
  with Progress('scoring', count(x, dataset, split, most)[0], of_bytes=False) as progress:
    for batch in progress.track(batches(x, dataset, layout, batch_axis, split, most)):
      found.append(jax.device_get(each(loaded.params, batch)))
  names = list(found[0]) if found else []
  rows = _rows(found, names)
  counted = rows[rows[:, 2 * names.index('loss') + 1] > 0] if names else rows
  if not len(counted):
    raise UserError('eval: the split has no labels. Expected at least one example.')
  known = list(_scores(x.task, names, counted.sum(0)))
  value = lambda name: lambda sums: _scores(x.task, names, sums)[name]
  return {f'val_{name}': measure(Measured(counted, value(name)), seed) for name in known}


def _rows(found: Sequence[Any], names: Sequence[str]) -> Floats:
  """Return sum and weight of each ratio for each example, float64 [examples, 2 ratios]."""
  columns = []
  for name, part in itertools.product(names, (0, 1)):
    columns.append(np.concatenate([ratios[name][part] for ratios in found]))
  return np.stack(columns, 1).astype(np.float64) if columns else np.zeros((0, 2))


def _scores(task: Task, names: list[str], sums: Floats) -> dict[str, float]:
  """Return the metrics of summed ratios, and the perplexity of text."""
  ratios = {name: (float(sums[2 * i]), float(sums[2 * i + 1])) for i, name in enumerate(names)}
  scores = {name: value for name, value in task.score(ratios).items() if value is not None}
  if 'loss_nats' in scores and isinstance(task, TextTask):
    nats = scores['loss_nats']
    scores['perplexity'] = math.exp(nats) if nats < 700 else math.inf
  return scores
