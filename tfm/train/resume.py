"""Restore the state of a run from its last good checkpoint."""

from collections.abc import Callable, Sequence
import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tfm.core import config, errors
from tfm.data.tokenizer import Vocabulary
from tfm.model import transformer
from tfm.train import checksums, constants, retry
from tfm.train import step as step_lib
from tfm.train.checkpoint import about, read_state
from tfm.train.experiment import Experiment
from tfm.train.saver import Checkpoints, read_extra_files
from tfm.train.step import State

#: The folders of a workdir for checkpoints that are damaged, or skipped by `skip_unreadable`.
BROKEN, SKIPPED = 'broken', 'skipped'
# Results of a read, in order of precedence: the highest one of all processes counts.
_READ, _DAMAGED, _UNREADABLE, _REFUSED = range(4)


@dataclasses.dataclass
class _Attempt:
  """The result of reading a checkpoint in this process."""

  result: int
  reason: str = ''
  error: Exception | None = None
  state: State | None = None
  notes: Sequence[str] = ()


def resume(
  checkpoints: Checkpoints,
  x: Experiment,
  like: State,
  vocabulary: Vocabulary | None,
  say: Callable[[str], None],
) -> State | None:
  """Restore the last good checkpoint of a run.

  Damaged checkpoints are moved away, with a message. A checkpoint that cannot be read but may be
  intact stops the run, unless `record.skip_unreadable` is set. Changes of the experiment since the
  checkpoint are listed in a message.

  Args:
    checkpoints: The checkpoints of the workdir.
    x: The experiment that continues.
    like: Shapes and shardings of its state, from `Built.like`.
    vocabulary: The vocabulary of its data, or None.
    say: Prints a message.

  Returns:
    The state, or None if there is no good checkpoint.

  Raises:
    UserError: The checkpoint has another model, vocabulary or optimizer state, or it cannot be read
      although it may be intact.
  """
  for name in checkpoints.half_written:
    say(f'{checkpoints.path / name}: is incomplete, because the run ended during a save. Removed.')
  steps = checkpoints.steps
  while steps:
    step = steps.pop()
    folder = checkpoints.path / str(step)
    attempt = _agreed(_attempt(checkpoints, folder, x, like, vocabulary))
    if attempt.result == _READ:
      for line in attempt.notes:
        say(line)
      return attempt.state
    if attempt.result == _REFUSED:
      raise attempt.error or errors.UserError(f'{folder}: another process cannot use it.')
    earlier = steps[-1] if steps else 0
    if attempt.result == _UNREADABLE and not x.record.skip_unreadable:
      raise errors.UserError(_unreadable(folder, attempt.reason, earlier)) from attempt.error
    damaged = attempt.result == _DAMAGED
    to = checkpoints.set_aside(step, BROKEN if damaged else SKIPPED)
    problem = 'is damaged' if damaged else 'cannot be read'
    following = f'the checkpoint of step {earlier} is tried' if steps else 'training starts again'
    if jax.process_index() == 0:  # immediately, because the next one may raise an error
      print(f'{folder}: {problem} ({attempt.reason}). It is moved to {to}, and {following}.')
  return None


def _attempt(
  checkpoints: Checkpoints,
  folder: Path,
  x: Experiment,
  like: State,
  vocabulary: Vocabulary | None,
) -> _Attempt:
  """Read a checkpoint, again after errors that may pass."""
  notes: list[str] = []

  def read() -> State:
    stored, stored_vocabulary = about(folder)
    notes.clear()
    compare(folder, stored, x, stored_vocabulary, vocabulary, notes.append)
    constants.check_unchanged(folder / 'about', checkpoints.models)
    state = read_state(folder, like)
    checkpoints.extra_files = read_extra_files(folder / 'about')
    return state

  try:
    state = _read_again_if_damaged(read, folder)
  except Exception as error:
    return _failed(folder, error)
  known = (folder / 'about' / checksums.FILE).exists()
  note = '' if known else ' (saved by an earlier version, without checksums)'
  notes.append(f'resumed from {folder}{note}')
  return _Attempt(_READ, state=state, notes=notes)


def _read_again_if_damaged(read: Callable[[], State], folder: Path) -> State:
  """Return `read()`. One error of the network or of a cache must not condemn a checkpoint."""
  try:
    return retry.retried(read, folder, print)
  except Exception as error:
    if not checksums.damage(error):
      raise
  return retry.retried(read, folder, print)


def _failed(folder: Path, error: Exception) -> _Attempt:
  """Return why a checkpoint was not read. It is damaged only if its folder is still there."""
  if (damage := checksums.damage(error)) and not retry.passing(error) and os.path.isdir(folder):
    return _Attempt(_DAMAGED, damage, error)
  if isinstance(error, errors.UserError) and not retry.passing(error):
    return _Attempt(_REFUSED, error=error)
  return _Attempt(_UNREADABLE, retry.reason(error), error)


def _agreed(attempt: _Attempt) -> _Attempt:
  """Return the attempt of this process with the worst result of all processes."""
  if jax.process_count() == 1:
    return attempt
  from jax.experimental import multihost_utils

  results = multihost_utils.process_allgather(np.int32(attempt.result))
  worst = int(np.max(results))
  if worst == attempt.result:
    return attempt
  return _Attempt(worst, f'in process {int(np.argmax(results))}')


def _unreadable(folder: Path, reason: str, earlier: int) -> str:
  step = int(folder.name)
  return (
    f'{folder}: cannot be read ({reason}). It may be intact, so nothing is moved or deleted. '
    f'Expected readable files. Run the same command again once they are, or continue from step '
    f'{earlier} with --config.record.skip_unreadable=true, which loses steps {earlier + 1} to '
    f'{step}.'
  )


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


def _state_of(x: Experiment) -> Any:
  """Return the path, shape and dtype of every array of the state."""
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  leaves = jax.tree_util.tree_leaves_with_path(step_lib.shapes(x, tx))
  return [(jax.tree_util.keystr(path), leaf.shape, leaf.dtype) for path, leaf in leaves]
