"""The contract of a schedule, and the warm-up and decay that most of them share.

The step is the count of updates made before this one: the first update of a run has step 0 and its
last `steps - 1`."""

import abc
from collections.abc import Callable, Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core.registry import Part

StepToRate = Callable[[jax.typing.ArrayLike], jax.Array]


@dataclasses.dataclass(frozen=True)
class Schedule(Part, abc.ABC):
  """A learning rate in the shape of the run: `lr` times a curve that is 1 at its peak."""

  #: Updates before the first one at the peak: update `i < warmup` has `(i + 1) / (warmup + 1)` of
  #: it, so none is zero.
  warmup: int = 0

  def make(self, lr: float, steps: int) -> StepToRate:
    """The float32 learning rate of step 0, 1, ..., for a run of `steps` updates; the step may be a
    tracer.
    """
    return lambda step: lr * self.curve(jnp.asarray(step, jnp.float32), steps)

  @abc.abstractmethod
  def curve(self, step: jax.Array, steps: int) -> jax.Array:
    """The share of the peak at a float32 `step` of a run of `steps`."""

  def ramp(self, step: jax.Array) -> jax.Array:
    """min(1, (step + 1) / (warmup + 1))."""
    return jnp.minimum(1.0, (step + 1) / (self.warmup + 1))

  def check(self) -> Iterator[str]:
    if self.warmup < 0:
      yield f'warmup: {self.warmup} updates cannot be. Expected 0 or more.'


@dataclasses.dataclass(frozen=True)
class Decay(Schedule):
  """A warm-up, then a tail from the peak at `start` down to `floor` of it at `horizon`, and the
  floor ever after.

  The horizon's own step is the first at the floor; a run that ends there stops one update short of
  it. A run shorter than its warm-up ends inside the warm-up."""

  #: Where the tail ends, as a share of the peak.
  floor: float = 0.1
  #: The step at which it ends; None is the length of the run.
  horizon: int | None = None

  def curve(self, step: jax.Array, steps: int) -> jax.Array:
    end = steps if self.horizon is None else self.horizon
    start = max(self.start(end), self.warmup)
    t = jnp.clip((step - start) / max(end - start, 1), 0.0, 1.0)
    return self.ramp(step) * (self.floor + (1 - self.floor) * self.tail(t))

  def start(self, end: int) -> int:
    """The last step at the peak, when the tail ends at step `end`."""
    del end
    return self.warmup

  @abc.abstractmethod
  def tail(self, t: jax.Array) -> jax.Array:
    """A curve from 1 at t = 0 to 0 at t = 1."""

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 <= self.floor <= 1:
      yield f'floor: {self.floor} is not a share of the peak. Expected 0 to 1 (from 1e-3 to 1e-4 is 0.1).'
    if self.horizon is not None and self.horizon < 1:
      yield f'horizon: {self.horizon} is not a step to end at. Expected 1 or more, or none for the length of the run.'
