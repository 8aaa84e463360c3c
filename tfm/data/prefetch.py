"""Prepare batches while the devices work on earlier ones."""

from collections.abc import Callable, Iterator
import queue
import threading
from typing import TypeVar

T = TypeVar('T')


def prefetch(fn: Callable[[int], T], start: int, stop: int, depth: int = 2) -> Iterator[T]:
  """Yield `fn(start), ..., fn(stop - 1)` in order, computed ahead by a background thread.

  Closing the iterator ends the thread.

  Args:
    fn: Returns the item of a step.
    start: The first step.
    stop: The end of the steps.
    depth: The number of items that wait at most.

  Yields:
    The items in order.

  Raises:
    Exception: The error that `fn` raised, at its step.
  """
  ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
  closed = threading.Event()

  def put(item: tuple[T | None, BaseException | None]) -> None:
    while not closed.is_set():
      try:
        ready.put(item, timeout=0.1)
        break
      except queue.Full:
        continue

  def work() -> None:
    for step in range(start, stop):
      try:
        put((fn(step), None))
      except BaseException as error:
        put((None, error))
        break
      if closed.is_set():
        break

  thread = threading.Thread(target=work, name='tfm-prefetch', daemon=True)
  thread.start()
  try:
    for _ in range(start, stop):
      item, error = ready.get()
      if error is not None:
        raise error
      yield item  # type: ignore[misc]
  finally:
    closed.set()
    thread.join()
