"""Signs of life of every process of a run, and the end of a run that hangs.

Each process writes `workdir/heartbeats/PROCESS.json` every few seconds, from a thread. The thread
also watches its own main thread and the files of the others. If the run makes no progress for too
long, or another process is lost, it writes the stacks of all threads, names the process that is
late, and ends this process. A main thread that waits for a collective cannot raise an error.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import faulthandler
import json
import os
from pathlib import Path
import socket
import sys
import threading
import time

import jax

from tfm.train.goodput import Goodput
from tfm.train.recover import HUNG, Stopped, end_process

FOLDER = 'heartbeats'
#: Seconds between two beats.
BEAT = 5.0
#: Beats without a change after which another process counts as lost. jax ends a run with a lost
#: process after 100 s, without a name.
MISSED = 16


@dataclasses.dataclass(frozen=True)
class Beat:
  """The record of a process.

  Attributes:
    process: Its index.
    host: The name of its host.
    pid: Its process id.
    beat: A counter that grows with each record.
    step: The number of updates.
    phase: The phase (see `goodput.PHASES`), or 'ended'.
    barrier: The name of the barrier that it waits at, or ''.
    still: Seconds since its last progress, by its own clock.
    waited: Seconds that it has waited for batches in total.
  """

  process: int
  host: str
  pid: int
  beat: int
  step: int
  phase: str
  barrier: str
  still: float
  waited: float

  def __str__(self) -> str:
    where = f' at barrier {self.barrier!r}' if self.barrier else ''
    still = f', no progress for {self.still:.0f} s' if self.still else ''
    return f'process {self.process} on {self.host}: step {self.step}, {self.phase}{where}{still}'


class Heartbeat:
  """The heartbeat of this process, within the context.

  Args:
    workdir: The folder of the run.
    clock: The phases of this process.
    patience: Seconds without progress until the run ends, or None for no limit.
    end: Ends this process with a status and a message.

  Attributes:
    folder: The folder of the records.
    clock: The phases of this process.
  """

  def __init__(
    self,
    workdir: Path,
    clock: Goodput,
    patience: float | None,
    end: Callable[[int, str], None] | None = None,
  ):
    self.folder = workdir / FOLDER
    self.clock, self._patience, self._end = clock, patience, end or end_process
    self._barrier, self._barriers = '', 0
    self._index, self._count = jax.process_index(), jax.process_count()
    self._beat, self._still, self._last = 0, 0, ('', -1, -1)
    self._unchanged: dict[int, tuple[int, int]] = {}
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._beats, name='tfm-heartbeat', daemon=True)

  def __enter__(self) -> 'Heartbeat':
    self.folder.mkdir(exist_ok=True)
    self._write('')
    self._thread.start()
    return self

  def __exit__(self, *error: object) -> None:
    self._ended.set()
    self._thread.join()
    with contextlib.suppress(OSError):
      self._write('ended')

  def barrier(self, name: str) -> None:
    """Wait until all processes reach the barrier.

    Args:
      name: What follows, such as 'save of step 500'.

    Raises:
      Stopped: A process does not arrive in time.
    """
    if self._count == 1:
      return
    from jax._src import distributed

    client = distributed.global_state.client
    assert client is not None
    self._barriers += 1
    limit = self._patience or 7 * 24 * 3600.0
    with self._waiting(name):
      try:
        client.wait_at_barrier(f'tfm {self._barriers}: {name}', int(limit * 1000))
      except jax.errors.JaxRuntimeError as error:
        raise Stopped(HUNG, f'barrier {name!r}: {_first_line(error)}. {self._late()}') from error

  @contextlib.contextmanager
  def naming_lost_processes(self) -> Iterator[None]:
    """End this process with a reason if an error within the context comes from a lost process.

    Otherwise the error is raised. Without this, the error of a collective would not name a process,
    and jax would wait for the lost process at the end of this one.
    """
    try:
      yield
    except (RuntimeError, ValueError) as error:
      if self._count > 1:
        self._patience = None  # this process ends anyway
        # If process 0 is lost, jax ends this process within two seconds.
        print(f'tfm train: {self.beat()}: {_first_line(error)}', file=sys.stderr, flush=True)
      if lost := self._silent():
        listed = '; '.join(map(str, lost))
        self._end(HUNG, f'{self.beat()}: lost {listed}. The error is {_first_line(error)}.')
      raise

  def _silent(self) -> list[Beat]:
    """Return the processes without a new record for three beats."""
    if self._count == 1:
      return []
    before = self.others()
    time.sleep(3 * BEAT)
    return [beat for beat in self.others() if beat in before and beat.phase != 'ended']

  @contextlib.contextmanager
  def _waiting(self, name: str) -> Iterator[None]:
    self._barrier = name
    try:
      yield
    finally:
      self._barrier = ''

  def _beats(self) -> None:
    while not self._ended.wait(BEAT):
      with contextlib.suppress(OSError):  # a full disk: the next beat tries again
        self._write('')
      self.watch()

  def watch(self) -> None:
    """Look for progress of this process, and for changes of the others.

    Data may be prepared and restored for any time before the first step.
    """
    clock = self.clock
    now = (clock.phase, clock.step, clock.ticks)
    # Beats are counted and not seconds, because a suspended process misses none of its beats.
    self._still = 0 if now != self._last else self._still + 1
    self._last = now
    lost = [beat for beat in self.others() if self._is_lost(beat)]
    if lost and self._still:
      listed = '; '.join(map(str, lost))
      self._stop(f'no sign of life for {MISSED * BEAT:.0f} s from {listed}')
    elif (
      self._patience is not None and clock.phase != 'setup' and self._still * BEAT >= self._patience
    ):
      self._stop(
        f'no progress for {self._still * BEAT:.0f} s (recover.patience={self._patience:g})'
      )

  def others(self) -> list[Beat]:
    """Return the last records of the other processes of this run."""
    found = []
    for index in range(self._count):
      with contextlib.suppress(OSError, ValueError, TypeError):
        if index != self._index:
          found.append(Beat(**json.loads((self.folder / f'{index}.json').read_text('utf-8'))))
    return found

  def _is_lost(self, beat: Beat) -> bool:
    """Return whether the record of another process has not changed for too long."""
    last, count = self._unchanged.get(beat.process, (-1, 0))
    count = count + 1 if beat.beat == last else 0
    self._unchanged[beat.process] = beat.beat, count
    return count >= MISSED and beat.phase != 'ended'

  def _stop(self, why: str) -> None:
    file = self.folder / f'{self._index}.stacks.txt'
    with open(file, 'w', encoding='utf-8') as stacks:
      faulthandler.dump_traceback(stacks)
    self._end(HUNG, f'{self.beat()}: {why}. {self._late()} The stacks are in {file}.')

  def _late(self) -> str:
    """Return which processes are late, and which waited longest for data."""
    # A process at a barrier or in a step waits for the others.
    order = lambda b: (b.step, bool(b.barrier), b.phase == 'step', -b.still)
    beats = sorted([self.beat(), *self.others()], key=order)
    if len(beats) == 1:
      return ''
    slow = sorted(beats, key=lambda b: -b.waited)
    ranks = ', '.join(f'process {b.process} on {b.host} {b.waited:.1f} s' for b in slow[:8])
    return f'Late: {beats[0]}. Waits for data, longest first: {ranks}.'

  def beat(self, phase: str = '') -> Beat:
    """Return the record of this process."""
    clock = self.clock
    return Beat(
      process=self._index,
      host=socket.gethostname(),
      pid=os.getpid(),
      beat=self._beat,
      step=clock.step,
      phase=phase or clock.phase,
      barrier=self._barrier,
      still=self._still * BEAT,
      waited=round(clock.seconds['data'], 3),
    )

  def _write(self, phase: str) -> None:
    self._beat += 1
    path = self.folder / f'{self._index}.json'
    new = path.with_suffix('.new')
    new.write_text(json.dumps(dataclasses.asdict(self.beat(phase))), 'utf-8')
    new.replace(path)


def _first_line(error: BaseException) -> str:
  return str(error).splitlines()[0][:300].rstrip('.')
