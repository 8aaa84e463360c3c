"""The metrics of a whole split, each example once."""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from tfm.core import errors
from tfm.core.precision import Precision
from tfm.data.base import Data
from tfm.data.dataset import Dataset
from tfm.data.fixed_vocabulary import FixedVocabulary
from tfm.data.progress import Progress
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Bpe, Vocabulary
from tfm.model.outputs import no_language_model
from tfm.tasks import (
  CausalLM,
  Classify,
  MaskedLM,
  PermutationLM,
  PrefixLM,
  Ratio,
  SpanCorruption,
  Task,
)
from tfm.train import shard
from tfm.train.build import BatchLayout, build_eval
from tfm.train.experiment import Experiment
from tfm.train.step import Batch

#: Batches that may run on the devices before the sums of the oldest are read.
_AHEAD = 4

Ratios = dict[str, Ratio]
EvalFn = Callable[[Any, Batch], Ratios]


def measured(eval_fn: EvalFn, task: Task, dataset: Dataset, whole: NamedSharding) -> EvalFn:
  """Return `eval_fn` that also returns the ratios of `Task.measures`, with the sharding `whole`."""
  measures = jax.jit(lambda batch: task.measures(batch, dataset), out_shardings=whole)
  return lambda params, batch: {**eval_fn(params, batch), **measures(batch)}


def evaluate(
  task: Task, eval_fn: EvalFn, params: Any, batches: Iterator[Batch]
) -> dict[str, float | None]:
  """Return the metrics of `task` over all batches, each named `val_...`.

  Raises:
    UserError: if no example has weight.
  """
  total: dict[str, tuple[float, float]] = {}
  under_way: list[Ratios] = []

  def add(found: Ratios) -> None:
    for name, ratio in jax.device_get(found).items():
      before = total.get(name, (0.0, 0.0))
      total[name] = before[0] + float(ratio.sum), before[1] + float(ratio.weight)

  for batch in batches:
    under_way.append(eval_fn(params, batch))
    if len(under_way) > _AHEAD:
      add(under_way.pop(0))
  for found in under_way:
    add(found)
  if not total or not total['loss'][1]:
    raise errors.UserError(
      'eval: the split has no labels. Expected at least one example, or a row of two tokens.'
    )
  return {f'val_{name}': value for name, value in task.score(total).items()}


def batches(
  x: Experiment,
  dataset: Dataset,
  layout: BatchLayout,
  rows: NamedSharding,
  split: str = 'val',
  most: int | None = None,
) -> Iterator[Batch]:
  """Yield the batches of a split on the devices.

  Args:
    x: The experiment.
    dataset: The open data of `x`.
    layout: The layout of the features, from `build`.
    rows: The sharding of rows, from `build`.
    split: Name of the split.
    most: Yield only this many batches, spread evenly over the split. All by default.
  """
  batch = x.data.batch
  mine = shard.my_rows(rows, batch)
  n, every = count(x, dataset, split, most)
  for raw in itertools.islice(dataset.eval_batches(split, batch, mine, every), n):
    yield shard.put(x.task.features(raw, dataset), layout.where, batch, mine)


def count(
  x: Experiment, dataset: Dataset, split: str = 'val', most: int | None = None
) -> tuple[int, int]:
  """Return the number of batches of `split` that are evaluated, and the stride between them."""
  n = dataset.eval_steps(split, x.data.batch)
  every = 1 if most is None else max(1, n // most)
  return min(-(-n // every), n if most is None else most), every


def evaluate_checkpoint(
  path: str | Path,
  split: str = 'val',
  change: Callable[[Experiment], Experiment] = lambda x: x,
  most: int | None = None,
  load: Callable[[str | Path], Any] | None = None,
) -> dict[str, Any]:
  """Evaluate a model on a split of data.

  Text is read with the tokenizer of the model.

  Args:
    path: The workdir of a run, or one checkpoint of it; with `tfm.load` as `load` a published
    folder too.
    split: Name of the split.
    change: Returns the experiment to evaluate with, such as one of other data. A published model
    has no data.
    most: Evaluate only this many batches, spread over the split.
    load: Reads the model (`spec`, `params`, `tokenizer`, `experiment`, `step`). By default
    checkpoints of tfm only.

  Returns:
    `step`, and the metrics of the task named `val_...`; None where a metric is unknown.

  Raises:
    UserError: if there is no checkpoint, no data is given, or its model or tokenizer would change.
  """
  from tfm.train import (
    checkpoint,  # here, as Orbax takes long to import and training has its own way to it
  )

  loaded = (load or checkpoint.load)(path)
  own = loaded.experiment or _experiment_of(path, loaded)
  if loaded.spec.lm is None and any(True for _ in own.task.fits(loaded.spec)):
    raise errors.UserError(f'eval: {path} {no_language_model(loaded.spec)}')
  x = own if change is None else change(own)
  if loaded.experiment is None and x.data == own.data:
    raise errors.UserError(
      f'eval: {path} is a published model, which names no data. Expected data, such as '
      "--config.data='text(files=a.txt, val_tail=0)' --split=train."
    )
  if x.model != loaded.spec:
    raise errors.UserError(f'eval: {path} holds another model. Expected no change of model.')
  data = x.data
  if isinstance(data, TextData):
    dataset: Dataset = _open_text(
      path, x, data, own.data if loaded.experiment else None, loaded.tokenizer
    )
  else:
    dataset = data.open(x.task)
  layout, rows, eval_fn = build_eval(x, jax.devices()[:1])
  whole = NamedSharding(rows.mesh, PartitionSpec())
  with Progress('scoring', count(x, dataset, split, most)[0], of_bytes=False) as progress:
    scored = progress.over(batches(x, dataset, layout, rows, split, most))
    found = evaluate(x.task, measured(eval_fn, x.task, dataset, whole), loaded.params, scored)
  return {'step': loaded.step, **found}


def _experiment_of(path: str | Path, loaded: Any) -> Experiment:
  """Return an experiment for a model that no run of tfm trained: the first task that it can do.

  Raises:
    UserError: if it can do none.
  """
  tasks: tuple[Task, ...] = (
    CausalLM(),
    MaskedLM(),
    PrefixLM(),
    SpanCorruption(),
    PermutationLM(),
    Classify(),
  )
  task = next((task for task in tasks if not any(True for _ in task.fits(loaded.spec))), None)
  if task is None:
    raise errors.UserError(f'eval: {path} {no_language_model(loaded.spec)}')
  dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(loaded.params)}
  precision = Precision(param=dtypes.pop() if len(dtypes) == 1 else 'float32')
  return Experiment(model=loaded.spec, task=task, precision=precision)


def _open_text(
  path: str | Path, x: Experiment, data: TextData, own: Data | None, vocabulary: Vocabulary | None
) -> Dataset:
  """Open text with the vocabulary of a checkpoint.

  Raises:
    UserError: if there is none, or the text needs another vocabulary.
  """
  if vocabulary is None:
    raise errors.UserError(
      f'eval: {path} has no tokenizer to read text with. Expected a checkpoint with one.'
    )
  # A new source, such as data=text(files=...), has the default tokenizer.
  if data.tokenizer not in (getattr(own, 'tokenizer', None), Bpe()):
    raise errors.UserError(
      f'eval: {path} reads text with its own tokenizer. Expected no change of data.tokenizer.'
    )
  # Only the text of the training run is already tokenised, and it may have changed since, or be
  # gone.
  corpus = (
    data.open(x.task) if isinstance(own, TextData) and _source(data) == _source(own) else None
  )
  if corpus is None or not corpus.vocabulary.same(vocabulary):
    corpus = dataclasses.replace(data, tokenizer=FixedVocabulary(vocabulary)).open(x.task)
  if not corpus.vocabulary.same(vocabulary):
    raise errors.UserError(
      f'eval: {path} was trained with another vocabulary ({vocabulary.size} tokens, specials '
      f'{", ".join(vocabulary.specials) or "none"}) than the data wants ({corpus.vocabulary.size}, '
      f'{", ".join(corpus.vocabulary.specials) or "none"}). Expected its own text, or one document.'
    )
  return corpus


def _source(data: TextData) -> TextData:
  """Return the text and its tokenizer, whatever the size of rows and batches."""
  return dataclasses.replace(data, length=1, batch=1, isolate=False, cache='')
