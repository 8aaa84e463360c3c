"""Warm-up, stable, decay (arXiv:2404.06395; the 1 - sqrt tail of arXiv:2405.18392)."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.optim.schedule.base import Decay

_TAILS = {'linear': lambda t: 1 - t, 'sqrt': lambda t: 1 - jnp.sqrt(t)}


@dataclasses.dataclass(frozen=True)
class WSD(Decay):
  """The peak until the last `fraction` of the horizon, then floor + (1 - floor) tail(t): 1 - t or 1
  - sqrt(t).

  A run may be stopped at any point of the stable part and decayed from there with another
  `horizon`."""

  floor: float = 0.0
  #: The share of the horizon that the decay takes.
  fraction: float = 0.2
  #: `linear` or `sqrt` (1 - sqrt(t)).
  shape: str = 'sqrt'

  def start(self, end: int) -> int:
    return end - round(self.fraction * end)

  def tail(self, t: jax.Array) -> jax.Array:
    return _TAILS[self.shape](t)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 < self.fraction <= 1:
      yield f'fraction: {self.fraction} is not a share of the run to decay in. Expected more than 0 and at most 1.'
    if self.shape not in _TAILS:
      yield f'shape: {errors.unknown("tail", self.shape, _TAILS)}'
