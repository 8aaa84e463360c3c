"""Read checkpoints of tfm: load a trained model. `resume.py` restores a run."""

from collections.abc import Callable, Sequence
import json
from pathlib import Path
import sys
from typing import Any, NamedTuple, TypeVar

from etils import epath
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from tfm.core import config, errors, json_text
from tfm.data import tokenizer as tokenizer_lib
from tfm.data.tokenizer import Vocabulary
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.train import checksums, retry, shard
from tfm.train import step as step_lib
from tfm.train.checksums import Broken
from tfm.train.experiment import Experiment
from tfm.train.saver import CLASSES, EXPERIMENT, FOLDER, no_orbax_warnings, on_disk

T = TypeVar('T')


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


def about(folder: Path) -> tuple[Experiment, Vocabulary | None]:
  """Return the experiment and the vocabulary of a checkpoint.

  Raises:
    Broken: A file is missing or damaged.
  """
  path = folder / 'about'
  checksums.verify(path)
  try:
    stored = json_text.parse((path / EXPERIMENT).read_text('utf-8'))
    vocabulary = tokenizer_lib.load(path) if (path / tokenizer_lib.FILE).exists() else None
  except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError) as error:
    raise Broken(f'{path}: {error}') from error
  return config.from_json(Experiment, stored), vocabulary


def class_names(folder: Path) -> tuple[str, ...]:
  """Return the class names of a checkpoint, in the order of the labels.

  Raises:
    Broken: The file is damaged.
  """
  path = folder / 'about' / CLASSES
  try:
    return tuple(json.loads(path.read_text('utf-8'))) if path.exists() else ()
  except ValueError as error:
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

  def read(folder: Path) -> Loaded:
    x, vocabulary = about(folder)
    step = int(folder.name) if folder.name.isdigit() else 0
    return Loaded(x.model, _params(folder, x, dtype, mesh), vocabulary, x, step, folder)

  return _first_readable(path, read)


def find(path: str | Path) -> Path:
  """Return the folder of the last readable checkpoint of a workdir.

  Only the experiment and the tokenizer are read.

  Raises:
    UserError: There is none, or files cannot be read although they may be intact.
  """

  def read(folder: Path) -> Path:
    about(folder)
    return folder

  return _first_readable(path, read)


def _first_readable(path: str | Path, read: Callable[[Path], T]) -> T:
  """Return the result of `read` for the latest checkpoint that is not damaged.

  Raises:
    UserError: There is none, or files cannot be read although they may be intact.
  """
  wrong: list[str] = []
  folders = _folders(Path(path).expanduser())
  for folder in folders:
    try:
      found = retry.retried(lambda folder=folder: read(folder), folder, _say)  # type: ignore[misc]
    except Exception as error:
      damage = checksums.damage(error)
      if isinstance(error, errors.UserError) and not damage:  # the mesh, not the files
        raise
      if not damage or retry.passing(error):
        raise errors.UserError(
          f'{folder}: cannot be read ({retry.reason(error)}). Expected readable files, or the '
          'folder of another checkpoint.'
        ) from error
      wrong.append(f'{folder.name}: {damage}')
      continue
    if wrong:
      _say(f'{path}: step {folder.name} is used, because others are damaged: {"; ".join(wrong)}.')
    return found
  raise _nothing(path, wrong)


def _say(text: str) -> None:
  print(text, file=sys.stderr)


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
  name = 'params' if x.optim.ema is None else 'ema'
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  shapes, letters = step_lib.shapes(x, tx)[name], step_lib.letters(x, tx)[name]
  shardings = shard.placed(mesh, x.mesh.table(), letters, shapes)

  def target(array: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> Any:
    wide = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize > 1
    kept = dtype if dtype and wide else array.dtype
    return jax.ShapeDtypeStruct(array.shape, kept, sharding=sharding)

  return read_state(folder, {name: jax.tree.map(target, shapes, shardings)})[name]


def read_state(folder: Path, like: Any) -> Any:
  """Return the arrays of a checkpoint that a tree names, and verify their checksums.

  Args:
    folder: The checkpoint.
    like: A tree of shapes, dtypes and shardings. It may lack arrays of the checkpoint.

  Returns:
    The tree with arrays. Each process reads its own shards, and waits for no other process.

  Raises:
    Exception: Files cannot be read. `checksums.damage` returns whether they are damaged.
  """
  path = folder / 'state'
  checksums.verify(path)
  stored = on_disk(like)
  restore_args = ocp.checkpoint_utils.construct_restore_args(stored)
  args = ocp.args.PyTreeRestore(stored, restore_args=restore_args, partial_restore=True)
  with no_orbax_warnings():
    found = ocp.PyTreeCheckpointHandler().restore(epath.Path(path), args=args)
  return jax.tree.map(lambda x, to: x if x.dtype == to.dtype else x.astype(to.dtype), found, like)
