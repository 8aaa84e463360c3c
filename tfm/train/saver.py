"""Checkpoints of a run: saved while training goes on, whole or not there at all. Reading them:
`checkpoint.py`.

`workdir/checkpoints/STEP/` holds `state/` (Orbax, each array in its pieces) and `about/`: the
resolved experiment as JSON, the vocabulary of text, the names of classes, and the files of the
folder that the run started from. So a checkpoint explains itself without the data it was trained
on."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import logging
from pathlib import Path
import shutil
import sys
from types import MappingProxyType
from typing import Any
import warnings

import jax
import orbax.checkpoint as ocp

from tfm.core import config, errors
from tfm.data.tokenizer import Vocabulary
from tfm.train.experiment import Experiment
from tfm.train.step import State

FOLDER = 'checkpoints'
BROKEN = 'broken'
EXPERIMENT = 'experiment.json'
CLASSES = 'classes.json'
#: The names of further files, which other files in the folder (Orbax's own) are told from.
BESIDE = 'beside.json'


class _AboutHandler(ocp.CheckpointHandler):
  """Writes the files of `about/`, from the first process."""

  def save(self, directory: Any, args: '_AboutSave') -> None:
    if jax.process_index() == 0:
      write_about(Path(directory), args.experiment, args.vocabulary, args.names, args.beside)

  def restore(self, directory: Any, args: Any = None) -> None:
    raise AssertionError('about/ is read as plain files, by checkpoint.py')


@ocp.args.register_with_handler(_AboutHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _AboutSave(ocp.args.CheckpointArgs):
  experiment: Experiment
  vocabulary: Vocabulary | None
  names: Sequence[str]
  beside: Mapping[str, bytes]


def write_about(
  path: Path,
  experiment: Experiment,
  vocabulary: Vocabulary | None,
  names: Sequence[str] = (),
  beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
  """Write the folder `about` of a checkpoint.

  Args:
    path: The folder.
    experiment: The resolved experiment.
    vocabulary: The vocabulary of text, if there is one.
    names: The names of the classes, in the order of the labels.
    beside: Further files by their names in the folder.
  """
  path.mkdir(parents=True, exist_ok=True)
  (path / EXPERIMENT).write_text(json.dumps(config.to_json(experiment), indent=1), 'utf-8')
  if vocabulary is not None:
    vocabulary.save(path)
  if names:
    (path / CLASSES).write_text(json.dumps(list(names), ensure_ascii=False, indent=1), 'utf-8')
  if beside:
    (path / BESIDE).write_text(json.dumps(sorted(beside), indent=1), 'utf-8')
  for name, content in beside.items():
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content)


def read_beside(about: Path) -> dict[str, bytes]:
  """Return the further files of a folder `about` by their names in it."""
  if not (about / BESIDE).exists():
    return {}
  return {
    name: (about / name).read_bytes() for name in json.loads((about / BESIDE).read_text('utf-8'))
  }


class Checkpoints:
  """The checkpoints of a workdir, the last `keep` of them.

  Attributes:
    names: The names of the classes, which every checkpoint keeps.
    beside: Files by name, which every checkpoint keeps in its folder `about`.
  """

  def __init__(self, workdir: Path, keep: int):
    _quiet()
    self.path = workdir.absolute() / FOLDER
    self.names: Sequence[str] = ()
    self.beside: Mapping[str, bytes] = {}
    self.half_written = [p.name for p in self.path.glob('*.orbax-checkpoint-tmp*')]
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, cleanup_tmp_directories=True, create=True
    )
    with unwarned():
      self._manager = ocp.CheckpointManager(self.path, options=options)

  @property
  def steps(self) -> list[int]:
    """The complete ones, ascending."""
    return sorted(self._manager.all_steps())

  def save(
    self, step: int, state: State, experiment: Experiment, vocabulary: Vocabulary | None
  ) -> None:
    """Starts to save; returns when the state is copied and may be donated.

    Raises: what an earlier save has failed with.
    """
    if step in self.steps:
      return
    about = _AboutSave(experiment, vocabulary, self.names, self.beside)
    args = ocp.args.Composite(state=ocp.args.PyTreeSave(state), about=about)
    with unwarned():
      self._manager.save(step, args=args, force=True)

  def restore(self, step: int, like: State) -> State:
    """The state of a step, laid out as the `jax.ShapeDtypeStruct`s of `like` with their shardings."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(like)
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore(like, restore_args=restore_args))
    with unwarned():
      return self._manager.restore(step, args=args)['state']

  def set_aside(self, step: int) -> Path:
    """Moves a checkpoint that cannot be read out of the way; nothing is deleted."""
    to = self.path.parent / BROKEN / str(step)
    if jax.process_index() == 0:
      to.parent.mkdir(exist_ok=True)
      shutil.rmtree(to, ignore_errors=True)
      (self.path / str(step)).rename(to)
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils

      multihost_utils.sync_global_devices(f'set aside {step}')
    self._manager.reload()
    return to

  def wait(self) -> None:
    """Returns when all is written. Raises: what a save has failed with."""
    with unwarned():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and ends the threads. Raises: what a save has failed with."""
    with unwarned():
      self._manager.close()


def workdir_of(path: str | Path) -> Path:
  """The directory as a path, made if it is not there.

  Raises: UserError if it is no place on a file system.
  """
  if '://' in str(path):
    raise errors.UserError(
      f'workdir: {path} is no directory. Expected a mounted one, as /gcs/bucket/run.'
    )
  workdir = Path(path).expanduser()
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(f'workdir: cannot make {workdir}: {error.strerror}.') from error
  return workdir


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
  """What Orbax warns of within itself is nothing a user can mend."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    yield


def _quiet() -> None:
  # What fails is raised as well; the log would only say it twice, with the traceback of a thread.
  for name in ('absl', 'orbax'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  if not isinstance(sys.unraisablehook, _Unraisable):
    sys.unraisablehook = _Unraisable(sys.unraisablehook)


class _Unraisable:
  """Keeps still about reads that finish after Orbax has closed its event loop over a broken
  checkpoint, one by one.
  """

  def __init__(self, usual: Any):
    self.usual = usual

  def __call__(self, unraisable: Any) -> None:
    if str(unraisable.exc_value) != 'Event loop is closed':
      self.usual(unraisable)
