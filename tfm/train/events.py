"""TensorBoard events without TensorFlow, written where they arise."""

from collections.abc import Iterator
import contextlib
from pathlib import Path
import socket
import sys
import time


@contextlib.contextmanager
def _unimported(name: str) -> Iterator[None]:
  """Within it a module that nobody has imported yet cannot be found."""
  if name in sys.modules:
    yield
    return
  sys.modules[name] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[name]


# tensorboardX would import PyTorch wherever it is installed (as in Colab), for 4 s, and for nothing
# that is used here.
with _unimported('torch'):
  from tensorboardX.proto.event_pb2 import Event, SessionLog
  from tensorboardX.record_writer import RecordWriter
  from tensorboardX.summary import scalar


class Events:
  """A file of scalars; TensorBoard forgets what older files of the folder say of `first` and later
  steps.

  tensorboardX's own writer hands events to a thread, whose errors (a full disk) nobody can catch.
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
    """Adds values of a step."""
    for name, value in values.items():
      self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()

  def _write(self, event: Event) -> None:
    self._writer.write(event.SerializeToString())
