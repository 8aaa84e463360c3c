"""How fast a run goes, evals and saves left out, and how much of the devices' peak that is."""

from collections.abc import Iterator
import contextlib
import time

import jax

from tfm.model import count
from tfm.train.experiment import Experiment
from tfm.train.peaks import peak


class Speed:
  """Tokens a second between two readings; the first step, which is compiled before it runs, is left out.

  MFU is analytic FLOPs of the model, three times those of its forward pass in training, over the peak of all `devices`.
  """

  def __init__(self, x: Experiment, devices: list[jax.Device]):
    *encoder, decoder = x.task.lengths(x.data.length)
    ahead = decoder * count.mtp_flops(x.model, decoder, sum(encoder))
    self._flops = 3 * x.data.batch * (count.flops_of_document(x.model, decoder, sum(encoder)) + ahead)
    peaks = [peak(d) for d in devices]
    self._peak = sum(p for p in peaks if p is not None) if None not in peaks else None
    self._tokens = x.tokens
    self._since: tuple[int, float] | None = None

  def read(self, step: int, now: float | None = None) -> dict[str, float | None]:
    """`tokens_per_s` and `mfu` since the last reading, None where nothing is known yet; call it when `step` is done."""
    now = time.perf_counter() if now is None else now
    before, self._since = self._since, (step, now)
    if before is None or step <= before[0]:
      return {'tokens_per_s': None, 'mfu': None}
    rate = (step - before[0]) / (now - before[1])
    return {'tokens_per_s': rate * self._tokens, 'mfu': rate * self._flops / self._peak if self._peak else None}

  def started(self, step: int) -> None:
    """Starts to measure with the end of the first step read."""
    if self._since is None:
      self._since = (step, time.perf_counter())

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves out the time inside."""
    start = time.perf_counter()
    yield
    if self._since is not None:
      self._since = (self._since[0], self._since[1] + time.perf_counter() - start)
