"""From files back to a state, a model, a sentence about what is wrong."""

from collections.abc import Callable, Sequence
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from tfm.core import config, errors
from tfm.data import tokenizer as tokenizer_lib
from tfm.data.tokenizer import Vocabulary
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.train import shard
from tfm.train import step as step_lib
from tfm.train.experiment import Experiment
from tfm.train.saver import CLASSES, EXPERIMENT, FOLDER, Checkpoints, read_beside, unwarned
from tfm.train.step import State


class Loaded(NamedTuple):
  """A trained model; `params` are the moving average where the run kept one, `folder` is the
  checkpoint's own.
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
  """The state of the last checkpoint that can be read, laid out as `like`; None if there is none.

  Broken ones are set aside, and said so. What differs between the stored experiment and `x` is said
  too.

  Raises: UserError if the checkpoint is of another model, vocabulary or optimizer state.
  """
  for name in checkpoints.half_written:
    say(f'{checkpoints.path / name}: was half written when the run ended, and is removed.')
  for step in reversed(checkpoints.steps):
    folder = checkpoints.path / str(step)
    try:
      stored, stored_vocabulary = about(folder)
      compare(folder, stored, x, stored_vocabulary, vocabulary, say)
      state = checkpoints.restore(step, like)
      checkpoints.beside = read_beside(folder / 'about')
    except errors.UserError:
      raise
    except Exception as error:
      to = checkpoints.set_aside(step)
      say(
        f'{folder}: cannot be read ({_short(error)}). It is moved to {to}, and the one before it '
        f'is tried.'
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
  """Says how `x` differs from the stored experiment.

  Raises: UserError if the state of one is none of the other's.
  """
  lines = config.diff(stored, x)
  listed = '\n'.join(f'  {line}' for line in lines)
  if stored.model != x.model:
    raise errors.UserError(
      f'{folder}: is of another model than this experiment:\n{listed}\nWanted the same, or another '
      f'--workdir.'
    )
  if not _same(old, new):
    raise errors.UserError(
      f'{folder}: was trained with another vocabulary ({_named(old)}) than the data now has '
      f'({_named(new)}).\n'
      f'{listed}\nExpected the same text and tokenizer, or another --workdir.'
    )
  if lines and _state_of(stored) != _state_of(x):
    raise errors.UserError(
      f'{folder}: holds the state of another optimizer or precision:\n{listed}\nWanted the same, '
      f'or another --workdir.'
    )
  if lines:
    say(f'the experiment has changed since {folder}:\n{listed}')


def _same(old: Vocabulary | None, new: Vocabulary | None) -> bool:
  return old is new if old is None or new is None else old.same(new)


def _named(vocabulary: Vocabulary | None) -> str:
  return 'none' if vocabulary is None else f'{vocabulary.kind}, {vocabulary.size} tokens'


def about(folder: Path) -> tuple[Experiment, Vocabulary | None]:
  """The experiment and the vocabulary of a checkpoint; no run of ours is without one.

  Raises: Broken.
  """
  path = folder / 'about'
  try:
    stored = json.loads((path / EXPERIMENT).read_text('utf-8'))
    vocabulary = tokenizer_lib.load(path) if (path / tokenizer_lib.FILE).exists() else None
    return config.from_json(Experiment, stored), vocabulary
  except (OSError, ValueError) as error:
    raise Broken(f'{path}: {error}') from error


def class_names(folder: Path) -> tuple[str, ...]:
  """Return the names of the classes that a checkpoint was trained on, in the order of the labels.

  Raises:
    Broken: the file is damaged.
  """
  path = folder / 'about' / CLASSES
  try:
    return tuple(json.loads(path.read_text('utf-8'))) if path.exists() else ()
  except (OSError, ValueError) as error:
    raise Broken(f'{path}: {error}') from error


def load(
  path: str | Path, dtype: Any | None = None, mesh: jax.sharding.Mesh | None = None
) -> Loaded:
  """The model of the last readable checkpoint of a workdir, or of the directory of one checkpoint.

  Its parameters are in `dtype` (None: as they are stored), split over `mesh` by the rules of its
  experiment (None: on one device); each process reads its own share.

  Raises: UserError if there is none, or the mesh does not divide its axes.
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
  """Return the folder of the last checkpoint of a workdir whose experiment and tokenizer can be
  read.

  Raises:
    UserError: there is none.
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
  """Return the error for a path without a checkpoint; `wrong` says why some could not be read."""
  said = f' Not readable: {"; ".join(wrong)}.' if wrong else ''
  said = said if Path(path).expanduser().exists() else ' There is no such folder.'
  return errors.UserError(
    f'{path}: holds no checkpoint that can be read.{said} Expected the --workdir of a training run.'
  )


def _folders(path: Path) -> list[Path]:
  """Checkpoint directories, the latest first."""
  if (path / 'about').is_dir():
    return [path.resolve()]
  path = path / FOLDER if (path / FOLDER).is_dir() else path
  steps = [p for p in path.glob('*') if p.name.isdigit() and p.is_dir()]
  return sorted((p.resolve() for p in steps), key=lambda p: -int(p.name))


def _params(folder: Path, x: Experiment, dtype: Any | None, mesh: jax.sharding.Mesh | None) -> Any:
  name, letters = 'params' if x.optim.ema is None else 'ema', transformer.param_letters(x.model)
  shapes = step_lib.shapes(x, x.optim.make(x.steps, letters))[name]
  where = shard.placed(mesh, x.mesh.table(), letters, shapes)
  like = {
    name: jax.tree.map(
      lambda s, w: jax.ShapeDtypeStruct(s.shape, dtype or s.dtype, sharding=w), shapes, where
    )
  }
  restore_args = ocp.checkpoint_utils.construct_restore_args(like)
  with unwarned(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    args = ocp.args.PyTreeRestore(like, restore_args=restore_args, partial_restore=True)
    return reader.restore(folder / 'state', args=args)[name]


def _state_of(x: Experiment) -> Any:
  """Path, shape and dtype of every array of the state."""
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  leaves = jax.tree_util.tree_leaves_with_path(step_lib.shapes(x, tx))
  return [(jax.tree_util.keystr(path), leaf.shape, leaf.dtype) for path, leaf in leaves]


def _short(error: BaseException) -> str:
  text = ' '.join(str(error).split()) or type(error).__name__
  return text if len(text) < 300 else f'{text[:300]}...'
