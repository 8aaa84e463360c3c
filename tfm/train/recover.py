"""Stop a run early: parameters that are not finite, full disks, SIGTERM, and lost workdirs."""

from collections.abc import Iterator
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp

#: Exit status: the loss is not finite.
DIVERGED = 1
#: Exit status: a step, a save or an evaluation hangs, or another process of the run is lost
#: (EX_SOFTWARE of sysexits.h).
HUNG = 70
#: Exit status: the disk is full (EX_IOERR of sysexits.h).
DISK_FULL = 74
#: Exit status: the state is saved after SIGTERM, and the same command continues (EX_TEMPFAIL of
#: sysexits.h).
PREEMPTED = 75
#: Exit status: the state is saved after SIGINT (Ctrl-C). Launchers should not restart the run.
INTERRUPTED = 130
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
  """Watch for SIGTERM and SIGINT (Ctrl-C) within the context.

  The first signal stops the run after a step, which all processes agree on. A second signal ends
  this process at once, even if its main thread waits for a device.

  Attributes:
    received: The name of the first signal, 'SIGTERM' if another process received it.
  """

  def __init__(self) -> None:
    self.received = 'SIGTERM'
    self._numbers: list[int] = []
    self._before: dict[int, Any] = {}
    self._wakeup = -1
    self._pipe: tuple[socket.socket, socket.socket] | None = None

  def __enter__(self) -> 'Preemption':
    if threading.current_thread() is not threading.main_thread():
      return self
    # With several processes, the handler of jax agrees on the step and must not be replaced.
    self._handle(signal.SIGINT)
    if jax.process_count() == 1:
      self._handle(signal.SIGTERM)
    self._pipe = socket.socketpair()
    self._pipe[1].setblocking(False)
    # Handlers of Python wait for the main thread. The pipe gets each signal immediately.
    self._wakeup = signal.set_wakeup_fd(self._pipe[1].fileno(), warn_on_full_buffer=False)
    threading.Thread(target=self._listen, name='tfm-signals', daemon=True).start()
    return self

  def __exit__(self, *error: object) -> None:
    if self._pipe is None:
      return
    signal.set_wakeup_fd(self._wakeup)
    for number, handler in self._before.items():
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for end in self._pipe[::-1]:
      end.close()

  def at(self, step: int) -> bool:
    """Return whether the run should stop after `step`."""
    if jax.process_count() == 1:
      return bool(self._numbers)
    from jax.experimental import multihost_utils

    stops = bool(multihost_utils.reached_preemption_sync_point(step))
    if stops and self._pipe is not None:
      self._numbers = self._numbers or [signal.SIGTERM]
      self._handle(signal.SIGTERM)
    return stops

  def _handle(self, number: int) -> None:
    self._before[number] = signal.signal(number, lambda *_: None)

  def _listen(self) -> None:
    """Read the signals, in a thread."""
    assert self._pipe is not None
    with contextlib.suppress(OSError):  # closed
      while received := self._pipe[0].recv(1):
        if received[0] in self._before:
          self._receive(received[0])

  def _receive(self, number: int) -> None:
    name = signal.Signals(number).name
    if self._numbers:
      end_process(128 + number, f'{name}: ended at once, without a save.')
    self.received = name
    self._numbers.append(number)
    print(
      f'{name}: the run saves and stops after this step. A second signal ends it at once, without '
      'a save.',
      file=sys.stderr,
      flush=True,
    )
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)  # the handler of jax informs the other processes


def end_process(status: int, message: str) -> None:
  """Print a message and end this process immediately, even if its main thread is blocked."""
  print(f'tfm train: {message}', file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(status)
