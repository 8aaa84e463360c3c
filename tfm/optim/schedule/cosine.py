"""Cosine decay (arXiv:1608.03983, without restarts)."""

import dataclasses

import jax
import jax.numpy as jnp

from tfm.optim.schedule.base import Decay


@dataclasses.dataclass(frozen=True)
class Cosine(Decay):
  """Cosine decay: floor + (1 - floor) (1 + cos(pi t)) / 2.

  t goes from 0 at the end of the warm-up to 1 at the horizon. It matches nanoGPT: for 1e-3 to 1e-4
  over 2000 updates with a warm-up of 100, set `lr=1e-3`, `warmup=100`, `floor=0.1`, and
  `horizon=2000` if the run has another length.
  """

  def tail(self, t: jax.Array) -> jax.Array:
    return 0.5 * (1 + jnp.cos(jnp.pi * t))
