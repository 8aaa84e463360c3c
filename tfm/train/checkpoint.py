"""Read checkpoints: restore a run, or load a trained model."""

from collections.abc import Callable, Sequence
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from tfm.core import config, errors, json_text
from tfm.data import tokenizer as tokenizer_lib
from tfm.data.tokenizer import Vocabulary
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.train import shard
from tfm.train import step as step_lib
from tfm.train.experiment import Experiment
from tfm.train.saver import (
  CLASSES,
  EXPERIMENT,
  FOLDER,
  Checkpoints,
  no_orbax_warnings,
  read_extra_files,
)
from tfm.train.step import State


class Loaded(NamedTuple):
  """A trained model, as read from a checkpoint of tfm.

  Attributes:
    spec: The model.
    params: Its parameters; the moving average if the run kept one.
    tokenizer: The vocabulary of the text that it was trained on, or None.
    experiment: The resolved experiment of the run.
    step: The number of updates.
    folder: The folder of the checkpoint.
  """

  spec: Model
  params: Any
  tokenizer: Vocabulary | None
  experiment: Experiment
  step: int
  folder: Path


class Broken(Exception):
  """A checkpoint that cannot be read."""


def resume(
  checkpoints: Checkpoints,
  x: Experiment,
  like: State,
  vocabulary: Vocabulary | None,
  say: Callable[[str], None],
) -> State | None:
  """Restore the last readable checkpoint of a run.

  Unreadable checkpoints are moved away, with a message. Changes of the experiment since the
  checkpoint are listed in a message.

  Args:
    checkpoints: The checkpoints of the workdir.
    x: The experiment that continues.
    like: Shapes and shardings of its state, from `Built.like`.
    vocabulary: The vocabulary of its data, or None.
    say: Prints a message.

  Returns:
    The state, or None if there is no readable checkpoint.

  Raises:
    UserError: The checkpoint has another model, vocabulary or optimizer state.
  """
  for name in checkpoints.half_written:
    say(f'{checkpoints.path / name}: is incomplete, because the run ended during a save. Removed.')
  for step in reversed(checkpoints.steps):
    folder = checkpoints.path / str(step)
    try:
      stored, stored_vocabulary = about(folder)
      compare(folder, stored, x, stored_vocabulary, vocabulary, say)
      state = checkpoints.restore(step, like)
      checkpoints.extra_files = read_extra_files(folder / 'about')
    except errors.UserError:
      raise
    except Exception as error:
      to = checkpoints.set_aside(step)
      say(
        f'{folder}: cannot be read ({_short(error)}). It is moved to {to}, and the previous '
        f'checkpoint is tried.'
      )
      continue
    say(f'resumed from {folder}')
    return state
  return None


def compare(
  folder: Path,
  stored: Experiment,
  x: Experiment,
  old: Vocabulary | None,
  new: Vocabulary | None,
  say: Callable[[str], None],
) -> None:
  """List how an experiment differs from the experiment of a checkpoint.

  Args:
    folder: The checkpoint, for messages.
    stored: Its experiment.
    x: The experiment that continues.
    old: The vocabulary of the checkpoint, or None.
    new: The vocabulary of the data, or None.
    say: Prints a message.

  Raises:
    UserError: The model, the vocabulary or the layout of the optimizer state differs.
  """
  lines = config.diff(stored, x)
  listed = '\n'.join(f'  {line}' for line in lines)
  if stored.model != x.model:
    raise errors.UserError(
      f'{folder}: has another model than this experiment:\n{listed}\n'
      f'Expected the same model, or another --workdir.'
    )
  if not _same(old, new):
    raise errors.UserError(
      f'{folder}: was trained with another vocabulary ({_named(old)}) than the data has now '
      f'({_named(new)}).\n{listed}\nExpected the same text and tokenizer, or another --workdir.'
    )
  if lines and _state_of(stored) != _state_of(x):
    raise errors.UserError(
      f'{folder}: has the state of another optimizer or precision:\n{listed}\n'
      f'Expected the same optimizer and precision, or another --workdir.'
    )
  if lines:
    say(f'the experiment has changed since {folder}:\n{listed}')


def _same(old: Vocabulary | None, new: Vocabulary | None) -> bool:
  return old is new if old is None or new is None else old.same(new)


def _named(vocabulary: Vocabulary | None) -> str:
  return 'none' if vocabulary is None else f'{vocabulary.kind}, {vocabulary.size} tokens'


def about(folder: Path) -> tuple[Experiment, Vocabulary | None]:
  """Return the experiment and the vocabulary of a checkpoint.

  Raises:
    Broken: A file is missing or damaged.
  """
  path = folder / 'about'
  try:
    stored = json_text.parse((path / EXPERIMENT).read_text('utf-8'))
    vocabulary = tokenizer_lib.load(path) if (path / tokenizer_lib.FILE).exists() else None
    return config.from_json(Experiment, stored), vocabulary
  except (OSError, ValueError) as error:
    raise Broken(f'{path}: {error}') from error


def class_names(folder: Path) -> tuple[str, ...]:
  """Return the class names of a checkpoint, in the order of the labels.

  Raises:
    Broken: The file is damaged.
  """
  path = folder / 'about' / CLASSES
  try:
    return tuple(json.loads(path.read_text('utf-8'))) if path.exists() else ()
  except (OSError, ValueError) as error:
    raise Broken(f'{path}: {error}') from error


def load(
  path: str | Path, dtype: Any | None = None, mesh: jax.sharding.Mesh | None = None
) -> Loaded:
  """Load the last readable checkpoint of a workdir.

  Args:
    path: A workdir, or the folder of one checkpoint.
    dtype: The dtype of the parameters. Defaults to the stored one.
    mesh: Shards the parameters by the rules of the experiment; each process reads its own
      shards. By default they are on one device.

  Returns:
    The model with its tokenizer and experiment.

  Raises:
    UserError: There is no readable checkpoint, or the mesh does not divide an axis.
  """
  wrong = []
  for folder in _folders(Path(path).expanduser()):
    try:
      x, vocabulary = about(folder)
      step = int(folder.name) if folder.name.isdigit() else 0
      return Loaded(x.model, _params(folder, x, dtype, mesh), vocabulary, x, step, folder)
    except errors.UserError:  # the mesh, not the files
      raise
    except Exception as error:
      wrong.append(f'{folder.name}: {_short(error)}')
  raise _nothing(path, wrong)


def find(path: str | Path) -> Path:
  """Return the folder of the last readable checkpoint of a workdir.

  Only the experiment and the tokenizer are read.

  Raises:
    UserError: There is none.
  """
  wrong = []
  for folder in _folders(Path(path).expanduser()):
    try:
      about(folder)
      return folder
    except Broken as error:
      wrong.append(f'{folder.name}: {_short(error)}')
  raise _nothing(path, wrong)


def _nothing(path: str | Path, wrong: Sequence[str]) -> errors.UserError:
  """Return the error for a path without a checkpoint; `wrong` lists the unreadable ones."""
  reason = f' Not readable: {"; ".join(wrong)}.' if wrong else ''
  if not Path(path).expanduser().exists():
    reason = ' There is no such folder.'
  return errors.UserError(
    f'{path}: holds no checkpoint that can be read.{reason} Expected the --workdir of a training '
    'run.'
  )


def _folders(path: Path) -> list[Path]:
  """Return the checkpoint folders, latest first."""
  if (path / 'about').is_dir():
    return [path.resolve()]
  path = path / FOLDER if (path / FOLDER).is_dir() else path
  steps = [p for p in path.glob('*') if p.name.isdigit() and p.is_dir()]
  return sorted((p.resolve() for p in steps), key=lambda p: -int(p.name))


def _params(folder: Path, x: Experiment, dtype: Any | None, mesh: jax.sharding.Mesh | None) -> Any:
  name, letters = 'params' if x.optim.ema is None else 'ema', transformer.param_letters(x.model)
  shapes = step_lib.shapes(x, x.optim.make(x.steps, letters))[name]
  shardings = shard.placed(mesh, x.mesh.table(), letters, shapes)

  def target(array: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> Any:
    return jax.ShapeDtypeStruct(array.shape, dtype or array.dtype, sharding=sharding)

  like = {name: jax.tree.map(target, shapes, shardings)}
  restore_args = ocp.checkpoint_utils.construct_restore_args(like)
  with no_orbax_warnings(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    args = ocp.args.PyTreeRestore(like, restore_args=restore_args, partial_restore=True)
    return reader.restore(folder / 'state', args=args)[name]


def _state_of(x: Experiment) -> Any:
  """Return the path, shape and dtype of every array of the state."""
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  leaves = jax.tree_util.tree_leaves_with_path(step_lib.shapes(x, tx))
  return [(jax.tree_util.keystr(path), leaf.shape, leaf.dtype) for path, leaf in leaves]


def _short(error: BaseException) -> str:
  text = ' '.join(str(error).split()) or type(error).__name__
  return text if len(text) < 300 else f'{text[:300]}...'
