"""How a run ends before its end, and what is kept then."""

from collections.abc import Iterator
import contextlib
import errno
import signal
import threading
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.data.dataset import Dataset

#: Exit status: the loss is not finite.
DIVERGED = 1
#: Exit status: the disk is full (EX_IOERR of sysexits.h).
DISK_FULL = 74
#: Exit status: SIGTERM came, the state is saved, the same command goes on (EX_TEMPFAIL of
#: sysexits.h).
PREEMPTED = 75
#: Exit status: another run took over the workdir (EX_UNAVAILABLE of sysexits.h).
LOST = 69

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = ('no space left', 'disk quota exceeded', 'enospc', 'edquot', 'file too large')


class Stopped(Exception):
  """A run that ended early for a reason outside its config; `status` is what its process exits
  with.
  """

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status


def check_finite(step: int, metrics: dict[str, Any], dataset: Dataset, seed: int) -> None:
  """Raises: Stopped, if the loss or the gradient of `step` (counted from 1) is not finite, naming
  the batch.
  """
  bad = {k: float(metrics[k]) for k in ('loss', 'grad_norm') if not np.isfinite(metrics[k])}
  if bad:
    samples = dataset.batch('train', seed, step - 1)['sample'].tolist()
    first = f'{samples[0]}..{samples[-1]}' if len(samples) > 1 else f'{samples[0]}'
    raise Stopped(
      DIVERGED,
      f'step {step}: {", ".join(f"{k} is {v}" for k, v in bad.items())}, so training stops; '
      f'earlier checkpoints are '
      f'kept. The batch: samples {first} of seed {seed}. A smaller optim.lr, a longer warm-up or '
      f'optim.clip may help.',
    )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def check_savable(step: int, state: dict[str, Any]) -> None:
  """Raises: Stopped, if the parameters that would be saved are not finite."""
  if not bool(_all_finite(state['params'])):
    raise Stopped(
      DIVERGED,
      f'step {step}: the update has made parameters that are not finite, so they are not saved and '
      f'training stops; '
      'earlier checkpoints are kept. A smaller optim.lr or optim.clip may help.',
    )


@contextlib.contextmanager
def full_disks_told(workdir: Any) -> Iterator[None]:
  """Turns the errors of a full disk, whoever raised them, into one `Stopped`."""
  try:
    yield
  except Exception as error:
    if isinstance(error, Stopped) or not is_full(error):
      raise
    raise Stopped(
      DISK_FULL,
      f'{workdir}: no space is left there, so training stops; the last complete checkpoint is '
      f'kept. '
      'Make room and give the same command again.',
    ) from error


def is_full(error: BaseException | None) -> bool:
  """Whether a full disk is at the root of `error`."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _FULL:
      return True
    if any(text in str(error).lower() for text in _FULL_TEXTS):
      return True
    error = error.__cause__ or error.__context__
  return False


class Preemption:
  """Whether SIGTERM has come; the loop asks between steps. Over several processes all get the same
  answer.
  """

  def __init__(self) -> None:
    self._come = False
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    # Several processes agree on the step through jax's own handler, which this one must not
    # replace.
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *error: object) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, number: int, frame: FrameType | None) -> None:
    self._come = True

  def at(self, step: int) -> bool:
    """Whether the run should stop after `step`."""
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils

      return multihost_utils.reached_preemption_sync_point(step)
    return self._come
