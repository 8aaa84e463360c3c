"""The skipped updates and rewinds of a workdir, in `audit.jsonl`.

The file is append-only. Replaying its rows gives the skipped steps, the skipped batches and the
window of recent losses. So a resumed run skips the same batches and keeps the same counts.
"""

from collections.abc import Iterable, Mapping
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

FILE = 'audit.jsonl'


class Rewind(NamedTuple):
  """A return from update `step` to the checkpoint of update `to`."""

  step: int
  to: int


class Audit:
  """The audit trail of a run. Every process holds it, and process 0 writes it.

  Args:
    workdir: The folder of the file.

  Attributes:
    path: The file of JSON lines. It exists once there is an event.
    bad: The steps whose updates were skipped, ascending.
    rewinds: The rewinds, in order.
    losses: The finite losses of the latest steps, in order.
  """

  def __init__(self, workdir: Path):
    self.path = workdir / FILE
    self.bad: list[int] = []
    self.rewinds: list[Rewind] = []
    self.losses: list[float] = []
    self._saved: dict[int, list[float]] = {}
    for row in _read(self.path):
      self._replay(row)

  def resume(self, step: int) -> None:
    """Forget the skipped updates after `step`, because these steps run again."""
    row = {'what': 'resume', 'step': step}
    if self.path.exists():
      self._write(row)
    self._replay(row)

  def skip(self, step: int, samples: list[list[int]], why: str) -> None:
    """Record an update that was skipped.

    Args:
      step: The number of the step, from 1.
      samples: The intervals of the sample numbers of its batch.
      why: The reason.
    """
    self._add({'what': 'skip', 'step': step, 'samples': samples, 'why': why})

  def rewind(self, step: int, to: int, samples: list[list[int]], why: str) -> None:
    """Record a rewind. The batches of steps `to` + 1 to `step` are not used again.

    Args:
      step: The number of the last step.
      to: The step of the checkpoint.
      samples: The intervals of the sample numbers of the batches.
      why: The reason.
    """
    self._add({'what': 'rewind', 'step': step, 'to': to, 'samples': samples, 'why': why})

  def save(self, step: int) -> None:
    """Record the window of losses that belongs to the checkpoint of a step."""
    self._add({'what': 'save', 'step': step, 'losses': self.losses})

  def skipped_batches(self, step: int) -> int:
    """Return the number of batches that rewinds skip before the update after `step`."""
    return sum(r.step - r.to for r in self.rewinds if r.to <= step)

  def bad_in_a_row(self) -> int:
    """Return the number of skipped updates without a gap, up to the last one."""
    count = 0
    while count < len(self.bad) and self.bad[-1 - count] == self.bad[-1] - count:
      count += 1
    return count

  def _add(self, row: dict[str, Any]) -> None:
    self._write(row)
    self._replay(row)

  def _replay(self, row: Mapping[str, Any]) -> None:
    """Change the counts by one row."""
    what, step = row['what'], row['step']
    if what == 'skip':
      self.bad.append(step)
    elif what == 'save':
      self._saved[step] = list(row['losses'])
    elif what == 'rewind':
      self.rewinds.append(Rewind(step, row['to']))
      self._forget(row['to'])
    else:
      self._forget(step)

  def _forget(self, step: int) -> None:
    self.bad = [bad for bad in self.bad if bad <= step]
    self.losses = list(self._saved.get(step, ()))

  def _write(self, row: dict[str, Any]) -> None:
    if jax.process_index() != 0:
      return
    file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
      # A killed process may leave half a line, which must not swallow this one.
      size = os.fstat(file).st_size
      cut = size > 0 and os.pread(file, 1, size - 1) != b'\n'
      os.write(file, ('\n' * cut + json.dumps(row) + '\n').encode())
      os.fsync(file)
    finally:
      os.close(file)


def intervals(samples: Iterable[int]) -> list[list[int]]:
  """Return ascending numbers as inclusive intervals: [0, 1, 2, 5] gives [[0, 2], [5, 5]]."""
  numbers = np.unique(np.fromiter(samples, np.int64))
  pieces = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
  return [[int(piece[0]), int(piece[-1])] for piece in pieces if len(piece)]


def _read(path: Path) -> list[dict[str, Any]]:
  rows = []
  for line in path.read_text('utf-8').splitlines() if path.exists() else ():
    try:
      rows.append(json.loads(line))
    except ValueError:  # half a line of a killed process
      continue
  return rows
