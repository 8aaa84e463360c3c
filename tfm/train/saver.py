"""Save the checkpoints of a run, asynchronously and atomically.

`workdir/checkpoints/STEP/` holds `state/` (Orbax, each array in its shards) and `about/`. The
latter has the resolved experiment as JSON, the vocabulary, the class names, and the files of the
folder that the run started from. So a checkpoint can be used without its training data.
All files have checksums (`checksums.py`). `checkpoint.py` reads checkpoints.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import logging
from pathlib import Path
import sys
from types import MappingProxyType
from typing import Any
import warnings

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from tfm.core import config, errors
from tfm.data.tokenizer import Vocabulary
from tfm.train import checksums, constants, recover, retry
from tfm.train.experiment import Experiment
from tfm.train.step import State

FOLDER = 'checkpoints'
EXPERIMENT = 'experiment.json'
CLASSES = 'classes.json'
#: Lists the names of extra files, to distinguish them from the files of Orbax.
EXTRA_FILES = 'beside.json'


class _AboutHandler(ocp.CheckpointHandler):
  """Writes the files of `about/`, from the first process."""

  def save(self, directory: Any, args: '_AboutSave') -> None:
    if jax.process_index() == 0:
      write_about(
        Path(directory), args.experiment, args.vocabulary, args.names, args.extra_files, args.models
      )

  def restore(self, directory: Any, args: Any = None) -> None:
    raise AssertionError('about/ is read as plain files, by checkpoint.py')


@ocp.args.register_with_handler(_AboutHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _AboutSave(ocp.args.CheckpointArgs):
  experiment: Experiment
  vocabulary: Vocabulary | None
  names: Sequence[str]
  extra_files: Mapping[str, bytes]
  models: Mapping[str, str]


def write_about(
  path: Path,
  experiment: Experiment,
  vocabulary: Vocabulary | None,
  names: Sequence[str] = (),
  extra_files: Mapping[str, bytes] = MappingProxyType({}),
  models: Mapping[str, str] = MappingProxyType({}),
) -> None:
  """Write the folder `about` of a checkpoint.

  Args:
    path: The folder.
    experiment: The resolved experiment.
    vocabulary: The vocabulary of text, or None.
    names: The class names, in the order of the labels.
    extra_files: The contents of further files, by name.
    models: The fingerprints of the further models of the task, by name.
  """
  path.mkdir(parents=True, exist_ok=True)
  (path / EXPERIMENT).write_text(json.dumps(config.to_json(experiment), indent=1), 'utf-8')
  if vocabulary is not None:
    vocabulary.save(path)
  if names:
    (path / CLASSES).write_text(json.dumps(list(names), ensure_ascii=False, indent=1), 'utf-8')
  if models:
    (path / constants.FILE).write_text(json.dumps(dict(models), indent=1), 'utf-8')
  if extra_files:
    (path / EXTRA_FILES).write_text(json.dumps(sorted(extra_files), indent=1), 'utf-8')
  for name, content in extra_files.items():
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content)
  checksums.write(path)


def read_extra_files(about: Path) -> dict[str, bytes]:
  """Return the contents of the extra files of a folder `about`, by name."""
  if not (about / EXTRA_FILES).exists():
    return {}
  names = json.loads((about / EXTRA_FILES).read_text('utf-8'))
  return {name: (about / name).read_bytes() for name in names}


class Checkpoints:
  """The last checkpoints of a workdir.

  Args:
    workdir: The folder of the run.
    keep: The number of checkpoints to keep.

  Attributes:
    path: The folder of the checkpoints.
    names: The class names that every checkpoint stores.
    extra_files: The contents of files that every checkpoint stores, by name.
    data_files: Such files of the data, which replace those of the same name.
    models: The fingerprints of the further models of the task, by name.
    half_written: The names of incomplete checkpoints, which were removed.
    failed: The step that the last finished save did not store, or None.
  """

  def __init__(self, workdir: Path, keep: int):
    _quiet()
    self.path = workdir.absolute() / FOLDER
    self.names: Sequence[str] = ()
    self.extra_files: Mapping[str, bytes] = {}
    self.data_files: Mapping[str, bytes] = {}
    self.models: Mapping[str, str] = {}
    self.failed: int | None = None
    self._saving = 0
    self.half_written = [p.name for p in self.path.glob('*.orbax-checkpoint-tmp*')]
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, cleanup_tmp_directories=True, create=True
    )
    with no_orbax_warnings():
      self._manager = ocp.CheckpointManager(self.path, options=options)

  @property
  def steps(self) -> list[int]:
    """The steps of the complete checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def save(
    self, step: int, state: State, experiment: Experiment, vocabulary: Vocabulary | None
  ) -> None:
    """Start to save a checkpoint. Return once the state is copied and may be donated.

    A checkpoint that exists is kept. If the previous save failed with an error that may pass, a
    message says so, and this one takes its place.

    Args:
      step: The number of updates.
      state: The training state.
      experiment: The resolved experiment.
      vocabulary: The vocabulary of text, or None.

    Raises:
      Stopped: This save and the previous one failed with errors that may pass.
      Exception: The error of an earlier save that failed.
    """
    if step in self.steps:
      return
    self._end_previous(step)
    files = {**self.extra_files, **self.data_files}
    about = _AboutSave(experiment, vocabulary, self.names, files, self.models)
    args = ocp.args.Composite(state=checksums.StateSave(on_disk(state)), about=about)
    self._saving = step
    with no_orbax_warnings():
      save = lambda: self._manager.save(step, args=args, force=True)
      if jax.process_count() > 1:  # a second try would wait for the other processes
        save()
      else:
        retry.retried(save, self.path / str(step), print)

  def _end_previous(self, step: int) -> None:
    """Wait for the previous save. Let it fail one time with an error that may pass."""
    try:
      with no_orbax_warnings():
        self._manager.wait_until_finished()
      self.failed = None
    except Exception as error:
      again = self.failed is not None
      if not retry.passing(error) or jax.process_count() > 1:
        raise
      if again:
        raise self._stopped(error) from error
      self.failed = self._saving
      print(
        f'{self.path / str(self.failed)}: was not saved ({retry.reason(error)}). Step {step} is '
        'saved instead.'
      )

  def set_aside(self, step: int, name: str) -> Path:
    """Move a checkpoint to the folder `name` of the workdir, and return its new path."""
    folder = self.path.parent / name
    to, number = folder / str(step), 1
    while to.exists():
      number += 1
      to = folder / f'{step}-{number}'
    _wait_for_all(f'{name} {step}')
    if jax.process_index() == 0:
      folder.mkdir(exist_ok=True)
      (self.path / str(step)).rename(to)
    _wait_for_all(f'{name} {step}, moved')
    self._manager.reload()
    return to

  def wait(self) -> None:
    """Wait until everything is written.

    Raises:
      Stopped: The save failed with an error that may pass.
      Exception: The error of a save that failed.
    """
    try:
      with no_orbax_warnings():
        self._manager.wait_until_finished()
    except Exception as error:
      if retry.passing(error):
        raise self._stopped(error) from error
      raise

  def _stopped(self, error: Exception) -> recover.Stopped:
    return recover.Stopped(
      recover.DISK_FULL,
      f'{self.path / str(self._saving)}: was not saved ({retry.reason(error)}). Training stops, '
      'and earlier checkpoints are kept. Run the same command again to continue from the last one.',
    )

  def close(self) -> None:
    """Wait, and end the threads. Raise the error of a save that failed."""
    with no_orbax_warnings():
      self._manager.close()


def on_disk(tree: Any) -> Any:
  """Return arrays or their shapes with 4-bit integers as bytes, which TensorStore can store."""

  def one(x: Any) -> Any:
    if x.dtype not in (jnp.int4, jnp.uint4):
      return x
    dtype = jnp.dtype('int8' if x.dtype == jnp.int4 else 'uint8')
    if isinstance(x, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)
    return x.astype(dtype)

  return jax.tree.map(one, tree)


def _wait_for_all(what: str) -> None:
  """Wait until all processes of the run are here."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(what)


def workdir_of(path: str | Path) -> Path:
  """Return the workdir as a path. It is created if needed.

  Raises:
    UserError: It is a URL, or cannot be created.
  """
  if '://' in str(path):
    raise errors.UserError(
      f'workdir: {path} is not a directory. Expected a mounted directory, such as /gcs/bucket/run.'
    )
  workdir = Path(path).expanduser()
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
      f'workdir: cannot create {workdir} ({error.strerror}). Expected a writable folder.'
    ) from error
  return workdir


@contextlib.contextmanager
def no_orbax_warnings() -> Iterator[None]:
  """Suppress the internal warnings of Orbax. Users cannot act on them."""
  _ignore_unawaited()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    yield


def _quiet() -> None:
  # Errors are raised as well. The log would repeat them with the traceback of a thread.
  for name in ('absl', 'orbax'):
    logging.getLogger(name).setLevel(logging.CRITICAL)


def _ignore_unawaited() -> None:
  logging.getLogger('asyncio').addFilter(_of_others)
  if not isinstance(sys.unraisablehook, _Unraisable):
    sys.unraisablehook = _Unraisable(sys.unraisablehook)


#: Reads of a broken checkpoint that nothing waits for, because another one has failed already.
_UNAWAITED = ('Event loop is closed', 'Encountered error while reading array index')


def _of_others(record: logging.LogRecord) -> bool:
  """Return whether a record is not about a task of Orbax that nothing waits for."""
  text = record.getMessage()
  return 'never retrieved' not in text or not any(name in text for name in ('orbax', 'tensorstore'))


class _Unraisable:
  """Ignore reads that finish after Orbax has closed its event loop over a broken checkpoint."""

  def __init__(self, usual: Any):
    self.usual = usual

  def __call__(self, unraisable: Any) -> None:
    if not str(unraisable.exc_value).startswith(_UNAWAITED):
      self.usual(unraisable)
