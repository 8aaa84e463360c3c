"""The interface of a schedule, with warm-up and decay.

The step is the number of previous updates: the first update of a run has step 0, and the last one
has `steps - 1`.
"""

import abc
from collections.abc import Callable, Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core.registry import Part

StepToRate = Callable[[jax.typing.ArrayLike], jax.Array]


@dataclasses.dataclass(frozen=True)
class Schedule(Part, abc.ABC):
  """A learning rate schedule: `lr` times a curve with peak 1.

  Attributes:
    warmup: The number of updates before the peak. Update `i < warmup` has (i + 1) / (warmup + 1) of
      it, so none is zero.
  """

  warmup: int = 0

  def make(self, lr: float, steps: int) -> StepToRate:
    """Return `step -> learning rate` in float32, for a run of `steps` updates.

    The step may be a traced value.
    """
    return lambda step: lr * self.curve(jnp.asarray(step, jnp.float32), steps)

  @abc.abstractmethod
  def curve(self, step: jax.Array, steps: int) -> jax.Array:
    """Return the fraction of the peak at a float32 `step` of a run of `steps`."""

  def ramp(self, step: jax.Array) -> jax.Array:
    """Return min(1, (step + 1) / (warmup + 1))."""
    return jnp.minimum(1.0, (step + 1) / (self.warmup + 1))

  def check(self) -> Iterator[str]:
    if self.warmup < 0:
      yield f'warmup: is {self.warmup}. Expected 0 or more.'


@dataclasses.dataclass(frozen=True)
class Decay(Schedule):
  """A warm-up, then a decay from the peak to `floor` at `horizon`, and then constant.

  The step `horizon` is the first at the floor, so a run of that length stops one update before. A
  run shorter than its warm-up ends within it.

  Attributes:
    floor: The end of the decay, as a fraction of the peak.
    horizon: The end of the decay. Defaults to the number of steps.
  """

  floor: float = 0.1
  horizon: int | None = None

  def curve(self, step: jax.Array, steps: int) -> jax.Array:
    end = steps if self.horizon is None else self.horizon
    start = max(self.start(end), self.warmup)
    t = jnp.clip((step - start) / max(end - start, 1), 0.0, 1.0)
    return self.ramp(step) * (self.floor + (1 - self.floor) * self.tail(t))

  def start(self, end: int) -> int:
    """Return the last step at the peak, for a decay that ends at step `end`."""
    del end
    return self.warmup

  @abc.abstractmethod
  def tail(self, t: jax.Array) -> jax.Array:
    """Return the decay: a curve from 1 at t = 0 to 0 at t = 1."""

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 <= self.floor <= 1:
      yield (
        f'floor: is {self.floor}. Expected a fraction of the peak from 0 to 1, such as 0.1 for '
        '1e-3 to 1e-4.'
      )
    if self.horizon is not None and self.horizon < 1:
      yield f'horizon: is {self.horizon}. Expected 1 or more, or none for the length of the run.'
