"""Stop a run early: parameters that are not finite, full disks, SIGTERM, and lost workdirs."""

from collections.abc import Iterator
import contextlib
import errno
import signal
import threading
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

#: Exit status: the loss is not finite.
DIVERGED = 1
#: Exit status: the disk is full (EX_IOERR of sysexits.h).
DISK_FULL = 74
#: Exit status: the state is saved after SIGTERM, and the same command continues (EX_TEMPFAIL of
#: sysexits.h).
PREEMPTED = 75
#: Exit status: another run took over the workdir (EX_UNAVAILABLE of sysexits.h).
LOST = 69

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = ('no space left', 'disk quota exceeded', 'enospc', 'edquot', 'file too large')


class Stopped(Exception):
  """A run that ended early for a reason outside its config.

  Attributes:
    status: The exit status of the process.
  """

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def check_savable(step: int, state: dict[str, Any]) -> None:
  """Check the parameters before they are saved.

  Raises:
    Stopped: A parameter is not finite.
  """
  if not bool(_all_finite(state['params'])):
    raise Stopped(
      DIVERGED,
      f'step {step}: some parameters are not finite after the update. Training stops without '
      f'saving them, and earlier checkpoints are kept. Try a smaller optim.lr or optim.clip.',
    )


@contextlib.contextmanager
def stop_on_full_disk(workdir: Any) -> Iterator[None]:
  """Turn the errors of a full disk into `Stopped`, within the context."""
  try:
    yield
  except Exception as error:
    if isinstance(error, Stopped) or not is_full(error):
      raise
    raise Stopped(
      DISK_FULL,
      f'{workdir}: no space is left on the disk. Training stops, and the last complete checkpoint '
      f'is kept. Free some space and run the same command again.',
    ) from error


def is_full(error: BaseException | None) -> bool:
  """Return whether a full disk caused `error`, directly or through its causes."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _FULL:
      return True
    if any(text in str(error).lower() for text in _FULL_TEXTS):
      return True
    error = error.__cause__ or error.__context__
  return False


class Preemption:
  """Watch for SIGTERM within the context. All processes of a run agree on the step to stop at."""

  def __init__(self) -> None:
    self._received = False
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    # With several processes, the handler of jax agrees on the step and must not be replaced.
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *error: object) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, number: int, frame: FrameType | None) -> None:
    self._received = True

  def at(self, step: int) -> bool:
    """Return whether the run should stop after `step`."""
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils

      return multihost_utils.reached_preemption_sync_point(step)
    return self._received
