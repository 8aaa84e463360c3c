"""Further models of a task, such as a teacher. Their parameters are constants of the run."""

from collections.abc import Callable, Mapping
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.data import stateless_rng
from tfm.data.dataset import Dataset
from tfm.data.tokenizer import Vocabulary
from tfm.train.experiment import Experiment

#: The file of a checkpoint with the fingerprints of the models.
FILE = 'models.json'

#: `(folder, dtype, shardings) -> model` with `spec`, `params` and `tokenizer`. Without shardings,
#: `params` is None. The caller passes it, because training does not import the readers of
#: published models. `tfm.hub.read_model` is one.
ReadModel = Callable[[str, Any, Any], Any]


def described(x: Experiment, read_model: ReadModel | None) -> Experiment:
  """Return an experiment with the architectures of the further models of its task.

  Args:
    x: The experiment.
    read_model: Reads a model. It may be None if the task has no further models.

  Returns:
    The experiment with `models`, from the configs in the folders. No parameters are read.

  Raises:
    UserError: A folder holds no model, or there is no reader.
  """
  folders = x.task.models(x.init_from)
  if not folders:
    return dataclasses.replace(x, models={}) if x.models else x
  models = {name: _reader(read_model)(folder, None, None).spec for name, folder in folders.items()}
  return dataclasses.replace(x, models=models)


def read(
  x: Experiment, shapes: Mapping[str, Any], dataset: Dataset, read_model: ReadModel | None
) -> dict[str, Any]:
  """Return the parameters of the further models of a task, by name.

  Args:
    x: The experiment, with `models`.
    shapes: The parameters as sharded shapes (`Built.constants`).
    dataset: The open data.
    read_model: Reads a model.

  Returns:
    The sharded parameters, in the parameter dtype of the run.

  Raises:
    UserError: A model has another vocabulary than the data, or does not suit the task.
  """
  found = {}
  for name, folder in x.task.models(x.init_from).items():
    where = jax.tree.map(lambda array: array.sharding, shapes[name])
    model = _reader(read_model)(folder, x.precision.param, where)
    _check_vocabulary(f'task.{name}', folder, model.tokenizer, dataset.vocabulary)
    found[name] = model.params
  if wrong := list(x.task.fits_models(x.model, x.models)):
    raise errors.UserError('\n'.join(wrong))
  return found


def _reader(read_model: ReadModel | None) -> ReadModel:
  assert read_model is not None, 'the task has further models, which need the argument read_model'
  return read_model


def _check_vocabulary(
  where: str, folder: str, old: Vocabulary | None, new: Vocabulary | None
) -> None:
  """Raise an error if there are two vocabularies, and they differ."""
  if old is not None and new is not None and not old.same(new):
    raise errors.UserError(
      f'{where}: {folder} has another vocabulary ({old.kind}, {old.size} tokens) than the data '
      f'({new.kind}, {new.size} tokens). Expected the same tokenizer, such as data.tokenizer=file '
      'with its folder.'
    )


def fingerprints(constants: Mapping[str, Any]) -> dict[str, str]:
  """Return a fingerprint of the parameters of each model, equal for any sharding."""
  found = {}
  for name, params in constants.items():
    marks = {}
    for path, mark in jax.tree_util.tree_leaves_with_path(_sums(params)):
      marks[jax.tree_util.keystr(path)] = int(mark)
    found[name] = format(stateless_rng.word(json.dumps(marks, sort_keys=True)), '016x')
  return found


@jax.jit
def _sums(params: Any) -> Any:
  """Return a sum of each array as integers modulo 2^32, in which each position has a weight."""

  def one(x: jax.Array) -> jax.Array:
    unsigned = jnp.dtype(f'uint{8 * x.dtype.itemsize}')
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    for axis in range(x.ndim):
      place = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
      bits *= 2 * place + np.uint32(2 * axis + 1)
    return jnp.sum(bits, dtype=jnp.uint32)

  return jax.tree.map(one, params)


def check_unchanged(folder: Path, now: Mapping[str, str]) -> None:
  """Raise an error if the models of a checkpoint had other parameters than now.

  Args:
    folder: The folder `about` of the checkpoint.
    now: The fingerprints of this run.

  Raises:
    UserError: A model has changed. The message names it.
  """
  path = folder / FILE
  stored: dict[str, str] = json.loads(path.read_text('utf-8')) if path.exists() else {}
  for name, mark in stored.items():
    if name in now and now[name] != mark:
      raise errors.UserError(
        f'task.{name}: has other parameters than for {folder.parent}, so the objective has '
        'changed. Expected the same model, or another --workdir.'
      )
