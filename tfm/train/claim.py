"""One run per workdir, by a lock file that a dead process does not keep.

Two mechanisms work together, since neither suffices alone. The kernel (or the NFS server)
frees a file lock (`flock`, which Linux maps to byte-range locks on NFS) when its process ends.
But some mounts ignore or refuse such locks between hosts. So the file also has a record of its
holder with a counter that the holder raises. Other hosts watch on their own clock whether the
counter changes. Times of different hosts are never compared.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import errno
import fcntl
import json
import os
from pathlib import Path
import socket
import threading
import time
from typing import Any

import jax
import numpy as np

from tfm.core import errors
from tfm.train import recover
from tfm.train.holder import Holder, read

FILE = 'run.lock'
#: Seconds between two beats of a holder.
BEAT = 5.0
#: Beats without a change after which a holder on another host counts as dead.
MISSED = 6

# Short enough for one write, and never truncated: readers get an old or a new record.
_SIZE = 1024
_MESSAGE = 2048
_REFUSED = (errno.EWOULDBLOCK, errno.EACCES)


class Claim:
  """A workdir held by this process until `release`. Created by `take`.

  Args:
    path: The lock file.
    file: Its descriptor, locked if the file system supports locks.
    holder: The record of this process.
  """

  def __init__(self, path: Path, file: int, holder: Holder):
    self._path, self._file, self._holder = path, file, holder
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._beats, name='tfm-workdir', daemon=True)
    _write(file, holder)
    self._thread.start()

  def check(self) -> None:
    """Raise `recover.Stopped` if another run took over the workdir, or if it was removed.

    Another run takes over after a long suspension of this process.
    """
    if _removed(self._path):
      raise _gone(self._path.parent)
    found = read(self._path)
    if found is not None and found.token != self._holder.token:
      raise recover.Stopped(
        recover.LOST,
        f'workdir: {self._path.parent} was taken over by {found}, because this process did not '
        f'respond for {MISSED * self._holder.every:.0f} s. Expected one run per workdir. This run '
        f'stops and saves nothing more.',
      )

  def release(self) -> None:
    """Release the workdir. The file remains.

    Removing it would let two runs lock two files of the same name.
    """
    self._ended.set()
    self._thread.join()
    found = read(self._path)
    if found is None or found.token == self._holder.token:
      with contextlib.suppress(OSError):
        _put(self._file, b'')
    _OPEN.discard(self._file)
    os.close(self._file)

  def _beats(self) -> None:
    holder = self._holder
    while not self._ended.wait(holder.every):
      found = read(self._path)
      if found is not None and found.token != holder.token:
        return  # `check` reports it
      holder = dataclasses.replace(holder, beat=holder.beat + 1)
      # A full disk or a lost mount: the file lock holds, and the next beat tries again.
      with contextlib.suppress(OSError):
        _write(self._file, holder)


@contextlib.contextmanager
def claimed(workdir: Path, say: Callable[[str], None] = print) -> Iterator[Callable[[], None]]:
  """Hold `workdir` within the context.

  Process 0 of a multi-process run holds it for all of them.

  Args:
    workdir: The folder of a run.
    say: Prints a line before a wait.

  Yields:
    A function that raises `recover.Stopped` if the workdir was taken over or removed.

  Raises:
    UserError: Another run holds it. Raised in every process of this run.
    Stopped: An error within the context came from the removal of the workdir.
  """
  claim, refused = None, ''
  if jax.process_index() == 0:
    try:
      claim = take(workdir, say)
    except errors.UserError as error:
      refused = str(error)
  if refused := _from_first(refused):
    raise errors.UserError(refused)
  try:
    yield claim.check if claim is not None else lambda: None
  except Exception as error:
    if isinstance(error, recover.Stopped) or not _removed(workdir / FILE):
      raise
    raise _gone(workdir) from error
  finally:
    if claim is not None:
      claim.release()


def take(workdir: Path, say: Callable[[str], None] = print) -> Claim:
  """Claim a workdir for this process.

  A holder that has ended on this host is replaced without a wait. The record of another host is
  watched for `MISSED` of its beats, unless the file lock is already refused.

  Args:
    workdir: The folder of a run.
    say: Prints a line before a wait.

  Returns:
    The claim, which beats until it is released.

  Raises:
    UserError: Another run holds it, or the lock file cannot be written.
  """
  path = workdir / FILE
  try:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
  except OSError as error:
    raise errors.UserError(
      f'workdir: cannot write {path} ({error.strerror}). Expected a writable folder.'
    ) from error
  _OPEN.add(file)
  try:
    locked = _lock(file)
    holder = read(path)
    if not locked or (holder is not None and _alive(path, holder, say)):
      raise errors.UserError(_refusal(workdir, read(path) or holder))
    return Claim(path, file, Holder.current(BEAT))
  except BaseException:
    _OPEN.discard(file)
    os.close(file)
    raise


def _alive(path: Path, holder: Holder, say: Callable[[str], None]) -> bool:
  """Return whether the holder is alive, waiting for a beat if it is on another host."""
  if holder.checkable:
    return holder.alive
  patience = MISSED * holder.every
  say(
    f'workdir: {path} names {holder}, which cannot be checked from host {socket.gethostname()}. '
    f'Waiting up to {patience:.0f} s for a sign of life.'
  )
  end = time.monotonic() + patience
  while (left := end - time.monotonic()) > 0:
    time.sleep(min(left, holder.every / 4))
    if read(path) != holder:
      return True
  return False


def _removed(path: Path) -> bool:
  """Return whether a lock file was removed. It stays when a run ends."""
  try:
    os.stat(path)
  except (FileNotFoundError, NotADirectoryError):
    return True
  except OSError:  # a network mount that may come back
    return False
  return False


def _gone(workdir: Path) -> recover.Stopped:
  return recover.Stopped(
    recover.LOST,
    f'workdir: {workdir} was removed or moved, or its mount is gone. Training stops and saves '
    f'nothing more. Expected the folder to stay until the run ends.',
  )


def _refusal(workdir: Path, holder: Holder | None) -> str:
  who = 'another process' if holder is None else str(holder)
  return (
    f'workdir: {workdir} is in use by {who}. Expected one run per workdir. '
    'Wait until it ends, stop it, or choose another --workdir.'
  )


def _lock(file: int) -> bool:
  """Return whether this process has the file lock.

  File systems without locks never refuse.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    return error.errno not in _REFUSED
  return True


def _write(file: int, holder: Holder) -> None:
  _put(file, json.dumps(dataclasses.asdict(holder)).encode())


def _put(file: int, content: bytes) -> None:
  os.pwrite(file, content.ljust(_SIZE - 1) + b'\n', 0)
  os.fsync(file)


def _from_first(text: str) -> str:
  """Return the text of process 0 in every process."""
  if jax.process_count() == 1:
    return text
  from jax.experimental import multihost_utils

  content: Any = np.frombuffer(text.encode()[:_MESSAGE].ljust(_MESSAGE), np.uint8)
  received = np.asarray(multihost_utils.broadcast_one_to_all(content))
  return bytes(received).decode('utf-8', 'ignore').rstrip()


# A forked child would share the lock and keep it after the end of its parent.
_OPEN: set[int] = set()


def _close_in_child() -> None:
  for file in _OPEN:
    os.close(file)
  _OPEN.clear()


os.register_at_fork(after_in_child=_close_in_child)
