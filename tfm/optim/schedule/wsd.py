"""Warm-up, stable, decay (arXiv:2404.06395)."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.optim.schedule.base import Decay

_TAILS = {'linear': lambda t: 1 - t, 'sqrt': lambda t: 1 - jnp.sqrt(t)}


@dataclasses.dataclass(frozen=True)
class WSD(Decay):
  """The peak until the last `fraction` of the horizon, then a decay to the floor.

  A run may be stopped at any point of the stable part, and decayed from there with another
  `horizon`.

  Attributes:
    floor: The end of the decay, as a fraction of the peak.
    fraction: The share of the horizon for the decay.
    shape: The decay: `linear` (1 - t), or `sqrt` (1 - sqrt(t), arXiv:2405.18392).
  """

  floor: float = 0.0
  fraction: float = 0.2
  shape: str = 'sqrt'

  def start(self, end: int) -> int:
    return end - round(self.fraction * end)

  def tail(self, t: jax.Array) -> jax.Array:
    return _TAILS[self.shape](t)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not 0 < self.fraction <= 1:
      yield f'fraction: is {self.fraction}. Expected more than 0, at most 1.'
    if self.shape not in _TAILS:
      yield f'shape: {errors.unknown("tail", self.shape, _TAILS)}'
