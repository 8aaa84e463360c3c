"""Evaluate a model on a whole split, each example once."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from tfm.core import errors
from tfm.core.precision import Precision
from tfm.data.base import Data
from tfm.data.dataset import Dataset, Grouped, Raw
from tfm.data.fixed_vocabulary import FixedVocabulary
from tfm.data.progress import Progress
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Bpe, Vocabulary
from tfm.model.outputs import no_language_model
from tfm.tasks import (
  CausalLM,
  Classify,
  Features,
  MaskedLM,
  PermutationLM,
  PrefixLM,
  Ratio,
  SpanCorruption,
  Task,
  TextTask,
)
from tfm.train import constants, rollout, shard
from tfm.train.build import BatchLayout, Built, build_eval, constant_shapes
from tfm.train.experiment import Experiment
from tfm.train.step import Batch

#: Batches that may run on the devices before the sums of the oldest are read.
_IN_FLIGHT = 4

Ratios = dict[str, Ratio]
EvalFn = Callable[[Any, Batch], Ratios]


def measured(
  eval_fn: Callable[..., Ratios],
  task: Task,
  dataset: Dataset,
  replicated: NamedSharding,
  extra: tuple[Any, ...] = (),
) -> EvalFn:
  """Extend `eval_fn` by the metrics of `Task.measures`.

  Args:
    eval_fn: `(params, batch, *extra) -> ratios`.
    task: The task.
    dataset: The open data.
    replicated: The sharding of the ratios.
    extra: The further models of the task, from `Built.extra`.

  Returns:
    `(params, batch) -> ratios` with the additional ratios.
  """
  measures = jax.jit(lambda batch: task.measures(batch, dataset), out_shardings=replicated)
  return lambda params, batch: {**eval_fn(params, batch, *extra), **measures(batch)}


def evaluate(
  task: Task,
  eval_fn: EvalFn,
  params: Any,
  batches: Iterator[Batch],
  parts: Sequence[str] = (),
) -> dict[str, float | None]:
  """Return the metrics of a task over all batches.

  Args:
    task: The task.
    eval_fn: `(params, batch) -> ratios`.
    params: The parameters of the model.
    batches: The batches of a split.
    parts: The part of the data of each batch, from `parts`. Empty for data without parts.

  Returns:
    The metrics by name, with the prefix `val_`, and those of each part, as in `val_loss_nats/web`.
    None where a metric is unknown.

  Raises:
    UserError: No example has weight.
  """
  totals: dict[str, dict[str, tuple[float, float]]] = {part: {} for part in ('', *parts)}
  total = totals['']
  in_flight: list[tuple[str, Ratios]] = []

  def add(part: str, ratios: Ratios) -> None:
    for name, ratio in jax.device_get(ratios).items():
      for sums in [total, totals[part]] if part else [total]:
        before = sums.get(name, (0.0, 0.0))
        sums[name] = before[0] + float(ratio.sum), before[1] + float(ratio.weight)

  for i, batch in enumerate(batches):
    in_flight.append((parts[i] if parts else '', eval_fn(params, batch)))
    if len(in_flight) > _IN_FLIGHT:
      add(*in_flight.pop(0))
  for part, ratios in in_flight:
    add(part, ratios)
  if not total or not total['loss'][1]:
    raise errors.UserError(
      'eval: the split has no labels. Expected at least one example, or a text of two tokens.'
    )
  scores: dict[str, float | None] = {}
  for part, sums in totals.items():
    suffix = f'/{part}' if part else ''
    scores |= {f'val_{name}{suffix}': value for name, value in task.score(sums).items()}
  return scores


def batches(
  x: Experiment,
  dataset: Dataset,
  layout: BatchLayout,
  batch_axis: NamedSharding,
  split: str = 'val',
  most: int | None = None,
  features: Callable[[Raw], Features] | None = None,
) -> Iterator[Batch]:
  """Yield the batches of a split on the devices.

  Args:
    x: The experiment.
    dataset: The open data of `x`.
    layout: The layout of the features, from `build`.
    batch_axis: The sharding of the batch axis, from `build`.
    split: Name of the split.
    most: The maximum number of batches, spread evenly over the split. Defaults to all.
    features: Returns the features of a raw batch. Defaults to those of the task.

  Yields:
    The features by name, as global arrays.
  """
  batch = x.data.batch
  local = shard.local_slice(batch_axis, batch)
  n, stride = count(x, dataset, split, most)
  features = features or (lambda raw: x.task.features(raw, dataset))
  for raw in itertools.islice(dataset.eval_batches(split, batch, local, stride), n):
    yield shard.put(features(raw), layout.shardings, batch, local)


def count(
  x: Experiment, dataset: Dataset, split: str = 'val', most: int | None = None
) -> tuple[int, int]:
  """Return the number of evaluated batches and the stride between them.

  Args:
    x: The experiment.
    dataset: The open data of `x`.
    split: Name of the split.
    most: The maximum number of batches. Defaults to all.

  Returns:
    (number of batches, stride).
  """
  n = dataset.eval_steps(split, x.data.batch)
  if most is None:
    return n, 1
  stride = max(1, n // most)
  if isinstance(dataset, Grouped):
    return len(parts(x, dataset, split, most)), stride
  return min(-(-n // stride), most), stride


def parts(
  x: Experiment, dataset: Dataset, split: str = 'val', most: int | None = None
) -> list[str]:
  """Return the part of the data of each batch of `batches`.

  Args:
    x: The experiment.
    dataset: The open data of `x`.
    split: Name of the split.
    most: The maximum number of batches. Each part has one or more in any case. Defaults to all.

  Returns:
    The name of the part of each batch. Empty for data without parts.
  """
  if not isinstance(dataset, Grouped):
    return []
  sizes = dataset.eval_parts(split, x.data.batch)
  stride = 1 if most is None else max(1, sum(sizes.values()) // most)
  return [name for name, n in sizes.items() for _ in range(0, n, stride)]


def open_checkpoint(
  path: str | Path,
  change: Callable[[Experiment], Experiment] = lambda x: x,
  load: Callable[[str | Path], Any] | None = None,
) -> tuple[Any, Experiment, Experiment]:
  """Return a model and the experiment to evaluate it with.

  Args:
    path: The workdir of a run, or the folder of a checkpoint. With `tfm.load` as `load`, also a
      published folder.
    change: Returns the experiment to evaluate with, for example one with other data. A published
      model has no data.
    load: Reads the model (`spec`, `params`, `tokenizer`, `experiment`, `step`). Defaults to the
      reader of tfm's checkpoints.

  Returns:
    The loaded model, the changed experiment, and the experiment of the checkpoint.

  Raises:
    UserError: There is no checkpoint, no data is given, or the change would replace the model.
  """
  from tfm.train import checkpoint  # imported here, because Orbax takes long to import

  loaded = (load or checkpoint.load)(path)
  stored = loaded.experiment or _experiment_of(path, loaded)
  if loaded.spec.lm is None and any(True for _ in stored.task.fits(loaded.spec)):
    raise errors.UserError(f'eval: {path} {no_language_model(loaded.spec)}')
  x = change(stored)
  if loaded.experiment is None and x.data == stored.data:
    raise errors.UserError(
      f'eval: {path} is a published model, which names no data. Expected data, such as '
      "--config.data='text(files=a.txt, val_tail=0)' --split=train."
    )
  if x.model != loaded.spec:
    raise errors.UserError(f'eval: {path} holds another model. Expected no change of model.')
  return loaded, x, stored


def evaluate_checkpoint(
  path: str | Path,
  split: str = 'val',
  change: Callable[[Experiment], Experiment] = lambda x: x,
  most: int | None = None,
  load: Callable[[str | Path], Any] | None = None,
  read_model: constants.ReadModel | None = None,
  complete: rollout.Complete | None = None,
) -> dict[str, Any]:
  """Evaluate a model on a split of data.

  Text is read with the tokenizer of the model.

  Args:
    path: See `open_checkpoint`.
    split: Name of the split.
    change: See `open_checkpoint`.
    most: The maximum number of batches, spread evenly over the split. Defaults to all.
    load: See `open_checkpoint`.
    read_model: Reads the further models of the task, such as a teacher.
    complete: Generates samples, for a task that learns from them.

  Returns:
    `step`, and the metrics of the task named `val_...`. None where a metric is unknown. Language
    modelling also has `val_perplexity`.

  Raises:
    UserError: There is no checkpoint, no data is given, or the change would replace the model
      or its tokenizer.
  """
  loaded, x, stored = open_checkpoint(path, change, load)
  dataset = open_dataset(path, loaded, x, stored)
  x = constants.described(x, read_model)
  layout, batch_axis, eval_fn = build_eval(x, jax.devices()[:1])
  assert isinstance(batch_axis.mesh, jax.sharding.Mesh)
  shapes = constant_shapes(x, batch_axis.mesh)
  extra = Built.extra(constants.read(x, shapes, dataset, read_model))
  replicated = NamedSharding(batch_axis.mesh, PartitionSpec())
  eval_fn = measured(eval_fn, x.task, dataset, replicated, extra)
  with Progress('scoring', count(x, dataset, split, most)[0], of_bytes=False) as progress:
    features = rollout.scored(x, dataset, complete, loaded.params)
    scored = progress.track(batches(x, dataset, layout, batch_axis, split, most, features))
    of_parts = parts(x, dataset, split, most)
    scores = evaluate(x.task, eval_fn, loaded.params, scored, of_parts)
  nats = scores.get('val_loss_nats')
  if nats is not None and isinstance(x.task, TextTask):
    scores['val_perplexity'] = math.exp(nats) if nats < 700 else math.inf
  return {'step': loaded.step, **scores}


def open_dataset(path: str | Path, loaded: Any, x: Experiment, stored: Experiment) -> Dataset:
  """Open the data of an experiment, with the vocabulary of the model for text.

  Args:
    path: The checkpoint, for errors.
    loaded: The model, from `open_checkpoint`.
    x: The changed experiment.
    stored: The experiment of the checkpoint.

  Returns:
    The dataset.

  Raises:
    UserError: The model has no vocabulary, or the text needs another one.
  """
  if not isinstance(x.data, TextData):
    dataset = x.data.open(x.task)
    if loaded.tokenizer is not None and dataset.vocabulary is not None:
      _check_vocabulary(path, loaded.tokenizer, dataset.vocabulary)
    return dataset
  trained_on = stored.data if loaded.experiment else None
  return _open_text(path, x, x.data, trained_on, loaded.tokenizer)


def _experiment_of(path: str | Path, loaded: Any) -> Experiment:
  """Return an experiment for a published model, with the first task that fits it.

  Raises:
    UserError: No task fits.
  """
  tasks: tuple[Task, ...] = (
    CausalLM(),
    MaskedLM(),
    PrefixLM(),
    SpanCorruption(),
    PermutationLM(),
    Classify(),
  )
  task = next((task for task in tasks if not list(task.fits(loaded.spec))), None)
  if task is None:
    raise errors.UserError(f'eval: {path} {no_language_model(loaded.spec)}')
  dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(loaded.params)}
  dtype = dtypes.pop() if len(dtypes) == 1 else 'float32'
  return Experiment(model=loaded.spec, task=task, precision=Precision(param=dtype))


def _open_text(
  path: str | Path,
  x: Experiment,
  data: TextData,
  trained_on: Data | None,
  vocabulary: Vocabulary | None,
) -> Dataset:
  """Open text with the vocabulary of a checkpoint.

  Raises:
    UserError: The checkpoint has no vocabulary, or the text needs another one.
  """
  if vocabulary is None:
    raise errors.UserError(
      f'eval: {path} has no tokenizer to read text with. Expected a checkpoint with a tokenizer.'
    )
  # A new source, such as data=text(files=...), has the default tokenizer.
  if data.tokenizer not in (getattr(trained_on, 'tokenizer', None), Bpe()):
    raise errors.UserError(
      f'eval: {path} needs the tokenizer of its checkpoint. Expected no change of data.tokenizer.'
    )
  # Only the text of the training run is already tokenised. It may have changed or be deleted.
  corpus = None
  if isinstance(trained_on, TextData) and _source(data) == _source(trained_on):
    corpus = data.open(x.task)
  if corpus is None or not corpus.vocabulary.same(vocabulary):
    corpus = dataclasses.replace(data, tokenizer=FixedVocabulary(vocabulary)).open(x.task)
  _check_vocabulary(path, vocabulary, corpus.vocabulary)
  return corpus


def _check_vocabulary(path: str | Path, trained: Vocabulary, needed: Vocabulary) -> None:
  """Check that data has the vocabulary of a checkpoint.

  Raises:
    UserError: They differ.
  """
  if not needed.same(trained):
    raise errors.UserError(
      f'eval: {path} was trained with another vocabulary ({trained.size} tokens, specials '
      f'{", ".join(trained.specials) or "none"}) than the data needs '
      f'({needed.size} tokens, specials {", ".join(needed.specials) or "none"}). Expected the text '
      f'of the training run, or one document.'
    )


def _source(data: TextData) -> TextData:
  """Return the source of a text and its tokenizer, without lengths and batch sizes."""
  return dataclasses.replace(data, length=1, batch=1, isolate=False, packing='auto', cache='')
