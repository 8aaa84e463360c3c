"""Measure the throughput and the MFU of a run."""

from collections.abc import Iterator
import contextlib
import dataclasses
import time

import jax

from tfm.model import count
from tfm.train.experiment import Experiment
from tfm.train.peaks import peak


class Speed:
  """Throughput between two readings, without compilation, evaluations and saves.

  MFU is the FLOPs of the model over the peak of all devices. A training step counts as three
  forward passes. MFU is None for unknown devices, and for inputs with unknown FLOPs.

  Args:
    x: The experiment.
    devices: The devices that it runs on.
  """

  def __init__(self, x: Experiment, devices: list[jax.Device]):
    self._unit, _ = x.task.per_step(x.data)
    # The start, the amount and the FLOPs of a step of each phase of the curriculum.
    self._phases: list[tuple[int, int, float | None]] = []
    for start in x.curriculum.starts():
      phase = x.at(start)
      self._phases.append((start, x.task.per_step(phase.data)[1], flops_per_step(phase)))
    peaks = [peak(d) or 0.0 for d in devices]
    self._peak = sum(peaks) if all(peaks) else None
    self._since: tuple[int, float] | None = None

  def read(self, step: int, now: float | None = None) -> dict[str, float | None]:
    """Return `tokens_per_s` (or `examples_per_s`) and `mfu` since the last reading.

    Args:
      step: The step that has just finished.
      now: The time in seconds. Defaults to `time.perf_counter()`.

    Returns:
      Both values, None if unknown.
    """
    name = f'{self._unit}_per_s'
    now = time.perf_counter() if now is None else now
    before, self._since = self._since, (step, now)
    if before is None or step <= before[0]:
      return {name: None, 'mfu': None}
    amount, flops = self._done(before[0], step)
    seconds = now - before[1]
    mfu = flops / seconds / self._peak if flops and self._peak else None
    return {name: amount / seconds, 'mfu': mfu}

  def _done(self, first: int, last: int) -> tuple[int, float | None]:
    """Return the tokens (or examples) and the FLOPs between two steps, None if unknown."""
    total, flops = 0, 0.0
    known = all(each is not None for _, _, each in self._phases)
    ends = [start for start, *_ in self._phases[1:]] + [last]
    for (start, amount, each), end in zip(self._phases, ends, strict=True):
      steps = max(0, min(last, end) - max(first, start))
      total += steps * amount
      flops += steps * (each or 0.0)
    return total, flops if known else None

  def started(self, step: int) -> None:
    """Start the measurement, at the end of the first step."""
    if self._since is None:
      self._since = (step, time.perf_counter())

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Exclude the time spent within the context."""
    start = time.perf_counter()
    yield
    if self._since is not None:
      self._since = (self._since[0], self._since[1] + time.perf_counter() - start)


def flops_per_step(x: Experiment) -> float | None:
  """Return the FLOPs of a training step over all devices, or None if unknown.

  They are counted for text, and for images of the size in the model's config.
  """
  if len(pairs := x.task.by_task(x.data)) > 1:
    of_tasks = [flops_per_step(dataclasses.replace(x, task=t, data=d)) for t, d in pairs]
    known = [flops for flops in of_tasks if flops is not None]
    return sum(known) if len(known) == len(of_tasks) else None
  lengths = x.task.sequence_lengths(x.data)
  if not lengths:
    return 3 * x.data.batch * count.flops_of_document(x.model, 0) if _of_model_size(x) else None
  *encoder, decoder = lengths
  ahead = decoder * count.mtp_flops(x.model, decoder, sum(encoder))
  sequences = x.task.per_step(x.data)[1] / sum(lengths)
  return 3 * sequences * (count.flops_of_document(x.model, decoder, sum(encoder)) + ahead)


def _of_model_size(x: Experiment) -> bool:
  """Return whether a model of one tower takes inputs of exactly the shapes of the data."""
  features, inputs = x.task.shapes(x.model, x.data), x.model.embed.shapes(x.data.batch, 1)
  fits = all(
    name in features and features[name].shape == array.shape for name, array in inputs.items()
  )
  return fits and not x.model.towers
