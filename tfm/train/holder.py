"""The record of the process that holds a workdir."""

import dataclasses
import json
import os
from pathlib import Path
import socket
import time
import uuid


@dataclasses.dataclass(frozen=True)
class Holder:
  """The process that holds a workdir.

  Attributes:
    token: A random name, new for each claim.
    host: The host name.
    pid: The process id.
    boot: The boot id of the kernel. `pid` can be checked by processes with the same `boot` and
      `namespace`.
    namespace: The PID namespace.
    born: The start of the process in clock ticks since boot. It distinguishes reused process ids.
    since: The local time of the claim, for messages.
    every: Seconds between beats.
    beat: The number of beats until now.
  """

  token: str
  host: str
  pid: int
  boot: str
  namespace: str
  born: int
  since: str
  every: float
  beat: int = 0

  @classmethod
  def current(cls, every: float) -> 'Holder':
    """Return a record of this process, with a beat every `every` seconds."""
    pid = os.getpid()
    boot, namespace = _machine()
    since = time.strftime('%Y-%m-%d %H:%M:%S %Z')
    return cls(
      uuid.uuid4().hex, socket.gethostname(), pid, boot, namespace, _born(pid) or 0, since, every
    )

  def __str__(self) -> str:
    return f'process {self.pid} on host {self.host} since {self.since}'

  @property
  def checkable(self) -> bool:
    """Whether the process id of the holder can be looked up from this process."""
    boot, namespace = _machine()
    return (
      self.boot == boot
      and self.namespace == namespace
      and (bool(boot) or self.host == socket.gethostname())
    )

  @property
  def alive(self) -> bool:
    """Whether the process of a `checkable` holder still runs."""
    if not _machine()[0]:
      return _answers(self.pid)
    return _born(self.pid) == self.born


def read(path: Path) -> Holder | None:
  """Return the holder that a lock file names, or None if it names none.

  Each call opens the file, which makes an NFS client fetch changes from its server.
  """
  try:
    content = path.read_bytes().rstrip()
    return Holder(**json.loads(content)) if content else None
  except (OSError, ValueError, TypeError):
    return None


def _machine() -> tuple[str, str]:
  """Return the boot id and the PID namespace of this process, '' where the system has none."""
  try:
    return Path('/proc/sys/kernel/random/boot_id').read_text().strip(), os.readlink(
      '/proc/self/ns/pid'
    )
  except OSError:
    return '', ''


def _born(pid: int) -> int | None:
  """Return the start time of a process in clock ticks since boot, or None if it has ended."""
  try:
    # The name of the program, in parentheses, may contain anything.
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  except OSError:
    return None
  return None if fields[0] in 'ZX' else int(fields[19])


def _answers(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True
