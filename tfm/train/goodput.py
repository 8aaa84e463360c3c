"""Where the wall time of a workdir went, over all of its runs.

Each run appends lines to `goodput.jsonl`: the seconds of each phase so far. `summary` adds the runs
up. It needs no other source than this file.
"""

from collections.abc import Iterator, Sequence
import contextlib
import json
import os
from pathlib import Path
import time
from typing import Any, NamedTuple, TypeVar

import jax

FILE = 'goodput.jsonl'
#: Phases of a run, in the order of reports. `setup` opens data and restores, `compile` prepares
#: the first step, `data` waits for batches, `eval` also draws.
PHASES = ('step', 'compile', 'data', 'save', 'eval', 'setup')
#: Shares of the wall time outside of these phases. `repeated` are steps that ran again after a
#: restart or rewind, `down` is the time between two runs.
LOST = ('repeated', 'down')
#: Seconds between two lines. Checkpoints write further lines.
_EVERY = 30.0

T = TypeVar('T')


class Goodput:
  """A clock of the phases of one run. Each moment belongs to one phase.

  Args:
    workdir: The folder of the file.

  Attributes:
    path: The file of JSON lines.
    step: The number of updates so far, which the caller sets.
    seconds: The seconds of each phase so far, without the current one.
    phase: The current phase.
    ticks: A counter that grows with any progress.
  """

  def __init__(self, workdir: Path):
    self.path = workdir / FILE
    self.step = 0
    self.seconds = dict.fromkeys(PHASES, 0.0)
    self.phase, self.ticks, self._done = 'setup', 0, False
    self._run = self._written = time.time()
    self._since = time.perf_counter()

  @contextlib.contextmanager
  def within(self, phase: str) -> Iterator[None]:
    """Count the time within the context as one phase."""
    before = self.phase
    self.enter(phase)
    try:
      yield
    finally:
      self.enter(before)

  def enter(self, phase: str) -> None:
    """Count the time from now on as one phase."""
    now = time.perf_counter()
    self.seconds[self.phase] += now - self._since
    self.ticks += phase != self.phase
    self._since, self.phase = now, phase

  def tick(self, item: T) -> T:
    """Count progress within a phase, and return the item."""
    self.ticks += 1
    return item

  def waits(self, items: Iterator[T]) -> Iterator[T]:
    """Yield items. Waits for them count as `data`, the wait for the first one as `setup`."""
    phase, items = 'setup', iter(items)
    while True:
      with self.within(phase):
        try:
          item = next(items)
        except StopIteration:
          return
      phase = 'data'
      yield item

  def write(self, now: bool = True, done: bool = False) -> None:
    """Append the seconds so far to the file.

    Args:
      now: Whether to write at once. Otherwise at most every half minute.
      done: Whether the run is complete. Time until a later run then counts as no loss.
    """
    clock = time.time()
    if jax.process_index() != 0 or (not now and clock - self._written < _EVERY):
      return
    self._written, self._done = clock, self._done or done
    self.enter(self.phase)
    seconds = {name: round(value, 3) for name, value in self.seconds.items()}
    row = {
      'run': self._run,
      'time': clock,
      'step': self.step,
      'done': self._done,
      'seconds': seconds,
    }
    file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
      os.write(file, (json.dumps(row) + '\n').encode())
    finally:
      os.close(file)


def read(workdir: Path) -> list[dict[str, Any]]:
  """Return the lines of a workdir, in order. An incomplete line is skipped."""
  path, rows = workdir / FILE, []
  for line in path.read_text('utf-8').splitlines() if path.exists() else ():
    with contextlib.suppress(ValueError):
      rows.append(json.loads(line))
  return rows


def runs(rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
  """Return the seconds of each phase and loss, for each run.

  Args:
    rows: The lines of a workdir, from `read`.

  Returns:
    For each run, seconds by name: `PHASES`, then `LOST`.
  """
  out: list[dict[str, float]] = []
  pieces: list[_Steps] = []
  last: dict[str, Any] | None = None
  for row in rows:
    new_run = last is None or row['run'] != last['run']
    if new_run:
      stopped = last is not None and not last['done']
      down = max(0.0, row['run'] - last['time']) if last is not None and stopped else 0.0
      out.append({**dict.fromkeys(PHASES + LOST, 0.0), 'down': down})
    if last is not None and row['step'] < last['step']:
      pieces = _repeat_after(row['step'], pieces)
    before = None if new_run else last
    for name, value in row['seconds'].items():
      out[-1][name] += value - (before['seconds'][name] if before else 0.0)
    if before is not None and row['step'] > before['step']:
      spent = row['seconds']['step'] - before['seconds']['step']
      pieces.append(_Steps(before['step'], row['step'], spent, out[-1]))
    last = row
  return out


class _Steps(NamedTuple):
  """The seconds of steps `first` + 1 to `last`, and the run that they count for."""

  first: int
  last: int
  seconds: float
  run: dict[str, float]


def _repeat_after(step: int, pieces: list[_Steps]) -> list[_Steps]:
  """Count steps after `step` as repeated, and return the pieces of the others."""
  kept = []
  for piece in pieces:
    again = max(0, piece.last - max(piece.first, step))
    lost = piece.seconds * again / (piece.last - piece.first)
    piece.run['step'] -= lost
    piece.run['repeated'] += lost
    if piece.first < step:
      kept.append(piece._replace(last=piece.last - again, seconds=piece.seconds - lost))
  return kept


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
  """Return the share of the wall time of each phase and loss, over all runs.

  Args:
    rows: The lines of a workdir, from `read`.

  Returns:
    Shares by name, which add up to 1. Empty without lines. `step` is the goodput.
  """
  found = runs(rows)
  total = sum(sum(run.values()) for run in found)
  if not total:
    return {}
  shares = {}
  for name in PHASES + LOST:
    shares[name] = sum(run[name] for run in found) / total
  return shares


def text(rows: Sequence[dict[str, Any]]) -> str:
  """Return the shares as a line of text, '' without lines."""
  shares = summary(rows)
  if not shares:
    return ''
  found = runs(rows)
  seconds = sum(sum(run.values()) for run in found)
  listed = ', '.join(f'{name} {shares[name]:.1%}' for name in (*PHASES[1:], *LOST))
  return (
    f'goodput {shares["step"]:.1%} of {seconds:.0f} s in {len(found)} '
    f'{"run" if len(found) == 1 else "runs"}: {listed}. '
    f'Input wait: {shares["data"] / max(shares["step"], 1e-9):.2%} of step time'
  )
