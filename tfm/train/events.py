"""Write TensorBoard events without TensorFlow."""

from collections.abc import Iterator
import contextlib
from pathlib import Path
import socket
import sys
import time


@contextlib.contextmanager
def _unimported(name: str) -> Iterator[None]:
  """Hide a module from imports within the context, unless it is already imported."""
  if name in sys.modules:
    yield
    return
  sys.modules[name] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[name]


# tensorboardX would import PyTorch if it is installed (as in Colab), which takes 4 s and is not
# used here.
with _unimported('torch'):
  from tensorboardX.proto.event_pb2 import Event, SessionLog
  from tensorboardX.record_writer import RecordWriter
  from tensorboardX.summary import scalar


class Events:
  """A TensorBoard file of scalars.

  Values of step `first` and later steps in older files of the folder become invalid. The writer of
  tensorboardX is not used: it writes in a thread, so its errors (a full disk) cannot be caught.

  Args:
    folder: The folder of event files. It is created if needed.
    first: The first step that is written.
  """

  def __init__(self, folder: Path, first: int):
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    self._writer = RecordWriter(
      str(folder / f'events.out.tfevents.{now:.6f}.{socket.gethostname()}')
    )
    self._write(Event(wall_time=now, step=0, file_version='brain.Event:2'))
    if first > 1:
      self._write(Event(wall_time=now, step=first, session_log=SessionLog(status=SessionLog.START)))
    self._writer.flush()

  def scalars(self, step: int, values: dict[str, float]) -> None:
    """Add the values of a step."""
    for name, value in values.items():
      self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()

  def _write(self, event: Event) -> None:
    self._writer.write(event.SerializeToString())
