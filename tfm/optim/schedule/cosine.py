"""Half a cosine (arXiv:1608.03983, without the restarts)."""

import dataclasses

import jax
import jax.numpy as jnp

from tfm.optim.schedule.base import Decay


@dataclasses.dataclass(frozen=True)
class Cosine(Decay):
  """floor + (1 - floor) (1 + cos(pi t)) / 2, t from 0 at the end of the warm-up to 1 at the
  horizon.

  nanoGPT's schedule to the letter: lr 1e-3 down to 1e-4 over 2000 updates with 100 of warm-up is
  `lr=1e-3`, `warmup=100`, `floor=0.1` in a run of 2000 steps (or any run, with `horizon=2000`)."""

  def tail(self, t: jax.Array) -> jax.Array:
    return 0.5 * (1 + jnp.cos(jnp.pi * t))
