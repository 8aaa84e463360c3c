"""Write metrics: JSON lines, TensorBoard events, and a progress bar."""

from collections.abc import Iterator
import json
import math
import os
from pathlib import Path
import sys
import time
from typing import Any, TypeVar

import jax
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TaskID,
  TextColumn,
  TimeRemainingColumn,
)

from tfm.tasks import Shown
from tfm.train import report
from tfm.train.events import Events

FILE = 'metrics.jsonl'
SAMPLES = 'samples.txt'
#: Seconds between progress lines, if the output is not a terminal.
_LINE_SECONDS = 10.0
#: Seconds before an evaluation shows a bar.
_BAR_SECONDS = 2.0

T = TypeVar('T')


class Metrics:
  """The metrics of a run, written by process 0 only.

  Lines of steps after `first` are removed, because these steps run again: the previous run ended
  after its last checkpoint.

  Args:
    workdir: The folder of the files.
    first: The number of updates before this run.
    steps: The number of updates at its end.
    shown: The metric of the progress bar and the training curve.

  Attributes:
    path: The file of JSON lines.
    last_scores: The metrics of the last evaluation in the file, empty if there is none.
  """

  def __init__(self, workdir: Path, first: int, steps: int, shown: Shown):
    self._shown = shown
    self._writes = jax.process_index() == 0
    self._steps, self._first = steps, first
    self._last = time.monotonic()
    self._start: float | None = None
    self._bar: Progress | None = None
    self.path = workdir / FILE
    self.last_scores = _last_scores(self.path, first)
    if not self._writes:
      return
    _drop_after(self.path, first)
    self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    self._events = Events(workdir / 'tensorboard', first + 1)
    # No bar in notebooks, which would keep every frame of it.
    self._console = Console(soft_wrap=True, highlight=False, markup=False, force_jupyter=False,
                            force_terminal=sys.stdout.isatty())  # fmt: skip
    if self._console.is_terminal:
      columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('{task.description}'),
        TimeRemainingColumn(),
      )
      self._bar = Progress(*columns, console=self._console)
      self._task: TaskID = self._bar.add_task('compiling', total=steps, completed=first)
      self._bar.start()

  def started(self, step: int) -> None:
    """Estimate the time left from the end of this step, which compiled the program."""
    if self._start is None:
      self._first, self._start = step, time.monotonic()

  def train(self, step: int, row: dict[str, float | None], skipped: bool = False) -> None:
    """Write a line of training metrics, and show the main one every few seconds.

    Args:
      step: The number of updates.
      row: The metrics by name. None where one is unknown. Values that are not finite become None.
      skipped: Whether the update was skipped. The line then has `skipped: 1`.
    """
    finite = {k: v for k, v in row.items() if v is not None and math.isfinite(v)}
    row = dict.fromkeys(row) | finite
    self._write({'step': step, **row, **({'skipped': 1} if skipped else {})})
    value = row[self._shown.name]
    label, text = (
      self._shown.label.partition(' (')[0],
      'skipped' if value is None else f'{value:.4f}',
    )
    for name, value in row.items():
      if name.endswith('_per_s') and value is not None:
        text += f'  {value:,.0f} {name.removesuffix("_per_s")}/s'
    self._show(step, f'{label} {text}')

  def eval(self, step: int, row: dict[str, float | None]) -> None:
    """Write and show a line of validation metrics."""
    self._write({'step': step, **row})
    scores = '  '.join(f'{k} {v:.4f}' for k, v in row.items() if v is not None)
    self.say(f'step {step}/{self._steps}  {scores}')

  def sample(self, step: int, text: str) -> None:
    """Show text that the model generated, and append it to `samples.txt`."""
    self.say(f'step {step} writes:\n{text}\n')
    if self._writes:
      with open(self.path.parent / SAMPLES, 'a', encoding='utf-8') as file:
        file.write(f'--- step {step}\n{text}\n')

  def summary(self, step: int, shares: dict[str, float]) -> None:
    """Write the shares of the wall time to TensorBoard, as `goodput/PHASE`."""
    if self._writes:
      self._events.scalars(step, {f'goodput/{name}': value for name, value in shares.items()})

  def counted(self, batches: Iterator[T], total: int) -> Iterator[T]:
    """Yield the batches of a split, and show the progress.

    Args:
      batches: The batches.
      total: Their number.

    Yields:
      The batches, unchanged.
    """
    start = last = time.monotonic()
    task: TaskID | None = None
    for n, batch in enumerate(batches, 1):
      yield batch
      if not self._writes:
        continue
      now = time.monotonic()
      if n == 1:  # the first batch compiles
        start = now
      if self._bar is not None:
        if task is None and now - start > _BAR_SECONDS:
          task = self._bar.add_task('scoring', total=total)
        if task is not None:
          self._bar.update(task, completed=n)
      elif now - last > _LINE_SECONDS:
        last = now
        self.say(f'scoring {n}/{total}{_left(now - start, n - 1, total - n)}')
    if self._bar is not None and task is not None:
      self._bar.remove_task(task)

  def draw(self) -> None:
    """Draw the training curve."""
    if self._writes:
      report.draw(self.path.parent, read(self.path), self._shown)

  def pictures(self, pictures: list[tuple[NDArray[Any], str]]) -> None:
    """Draw validation images with the predictions of the model."""
    if self._writes:
      report.draw_grid(self.path.parent, pictures)

  def say(self, text: str) -> None:
    """Print a message."""
    if self._writes:
      self._console.print(text)

  def close(self) -> None:
    if self._writes:
      if self._bar is not None:
        self._bar.stop()
      self._events.close()
      os.close(self._file)

  def _write(self, row: dict[str, Any]) -> None:
    if self._writes:
      # A single write to a file opened for appending never leaves half a line.
      os.write(self._file, (json.dumps(row) + '\n').encode())
      values = {k: v for k, v in row.items() if k != 'step' and v is not None}
      self._events.scalars(row['step'], values)

  def _show(self, step: int, text: str) -> None:
    if not self._writes:
      return
    if self._bar is not None:
      self._bar.update(self._task, completed=step, description=text)
    elif (now := time.monotonic()) - self._last > _LINE_SECONDS:
      self._last = now
      left = _left(now - (self._start or now), step - self._first, self._steps - step)
      self.say(f'step {step}/{self._steps}  {text}{left}')


def read(path: str | Path) -> list[dict[str, Any]]:
  """Return the rows of a metrics file. An incomplete last line is skipped."""
  rows = []
  for line in _lines(Path(path)):
    try:
      rows.append(json.loads(line))
    except ValueError:
      continue
  return rows


def _last_scores(path: Path, step: int) -> dict[str, Any]:
  """Return the metrics of the last evaluation up to `step`, empty if there is none."""
  for row in reversed(read(path)):
    scores = {name: value for name, value in row.items() if name != 'step'}
    if row['step'] <= step and scores and all(name.startswith('val_') for name in scores):
      return scores
  return {}


def _drop_after(path: Path, step: int) -> None:
  """Rewrite the file without the rows after `step`."""
  rows = [row for row in read(path) if row['step'] <= step]
  if path.exists():
    new = path.with_suffix('.new')
    new.write_text(''.join(json.dumps(row) + '\n' for row in rows), 'utf-8')
    new.replace(path)


def _left(seconds: float, done: int, rest: int) -> str:
  """Return the time left at the current rate, empty without a rate."""
  return f'  {_clock(seconds / done * rest)} left' if done > 0 and seconds > 0 else ''


def _clock(seconds: float) -> str:
  minutes, rest = divmod(int(seconds), 60)
  if minutes < 60:
    return f'{minutes}:{rest:02}'
  return f'{minutes // 60}:{minutes % 60:02}:{rest:02}'


def _lines(path: Path) -> list[str]:
  return path.read_text('utf-8').splitlines() if path.exists() else []
