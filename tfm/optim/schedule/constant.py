"""A constant learning rate."""

import dataclasses

import jax

from tfm.optim.schedule.base import Schedule


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
  """The peak, after a linear warm-up."""

  def curve(self, step: jax.Array, steps: int) -> jax.Array:
    del steps
    return self.ramp(step)
