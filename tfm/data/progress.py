"""A progress bar that shows up only for work that takes long."""

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
  TimeElapsedColumn,
  TimeRemainingColumn,
)
from rich.progress import Progress as Bar

_PATIENCE = 2.0

T = TypeVar('T')


def _console() -> Console:
  # A notebook asks for colours, and would keep every picture of a bar.
  return Console(stderr=True, force_jupyter=False, force_terminal=sys.stderr.isatty())


class Progress:
  """Counts bytes, or anything else; after two seconds a bar with the time that is left stands on
  stderr.
  """

  def __init__(self, what: str, total: int | None, *, of_bytes: bool = True):
    self._what, self._total, self._done = what, total, 0
    self._count: ProgressColumn = DownloadColumn() if of_bytes else MofNCompleteColumn()
    self._start = time.monotonic()
    self._bar: Bar | None = None

  def advance(self, n: int) -> None:
    """Counts `n` more."""
    self._done += n
    if self._bar is None and time.monotonic() - self._start > _PATIENCE:
      columns = (TextColumn('{task.description}'), BarColumn(), self._count, TimeElapsedColumn())
      self._bar = Bar(*columns, TimeRemainingColumn(), console=_console())
      self._task = self._bar.add_task(self._what, total=self._total)
      self._bar.start()
    if self._bar is not None:
      self._bar.update(self._task, completed=self._done)

  def over(self, items: Iterable[T]) -> Iterator[T]:
    """The items; each is counted once the next is asked for."""
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
