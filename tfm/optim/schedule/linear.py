"""Linear decay (BERT uses `floor=0`)."""

import dataclasses

import jax

from tfm.optim.schedule.base import Decay


@dataclasses.dataclass(frozen=True)
class Linear(Decay):
  """Linear decay: floor + (1 - floor) (1 - t).

  t goes from 0 at the end of the warm-up to 1 at the horizon.
  """

  def tail(self, t: jax.Array) -> jax.Array:
    return 1 - t
