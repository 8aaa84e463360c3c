"""A progress bar that appears only for long work."""

from collections.abc import Iterable, Iterator
import sys
import time
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
  BarColumn,
  DownloadColumn,
  MofNCompleteColumn,
  ProgressColumn,
  TextColumn,
  TimeRemainingColumn,
)
from rich.progress import Progress as Bar

#: Seconds before a bar appears.
_BAR_SECONDS = 2.0

T = TypeVar('T')


def _console() -> Console:
  # Notebooks would keep every frame of a bar.
  return Console(stderr=True, force_jupyter=False, force_terminal=sys.stderr.isatty())


class Progress:
  """A bar on stderr with the remaining time, after two seconds of work.

  Args:
    what: The label of the bar.
    total: The amount of work, or None if unknown.
    of_bytes: Whether the unit is bytes.
  """

  def __init__(self, what: str, total: int | None, *, of_bytes: bool = True):
    self._what, self._total, self._done = what, total, 0
    self._count: ProgressColumn = DownloadColumn() if of_bytes else MofNCompleteColumn()
    self._start = time.monotonic()
    self._bar: Bar | None = None

  def advance(self, n: int) -> None:
    """Count `n` more units."""
    self._done += n
    if self._bar is None and time.monotonic() - self._start > _BAR_SECONDS:
      columns = (TextColumn('{task.description}'), BarColumn(), self._count, TimeRemainingColumn())
      self._bar = Bar(*columns, TextColumn('left'), console=_console())
      self._task = self._bar.add_task(self._what, total=self._total)
      self._bar.start()
    if self._bar is not None:
      self._bar.update(self._task, completed=self._done)

  def track(self, items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and count each once it is processed."""
    for item in items:
      yield item
      self.advance(1)

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if self._bar is not None:
      self._bar.stop()
