"""Inverse square root decay, as in the original transformer ("noam") and T5."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.optim.schedule.base import Schedule


@dataclasses.dataclass(frozen=True)
class Rsqrt(Schedule):
  """Inverse square root decay: lr min(1, s / warmup) sqrt(hold / max(s, hold)).

  s = step + 1 counts from 1, as in the papers:

  - arXiv:1706.03762 with `d_model=512`, `warmup=4000`, `lr=1`: 512^-0.5 min(s^-0.5, s 4000^-1.5).
  - The same by its peak: `lr=6.987712e-4`, `warmup=4000`, no `d_model`.
  - T5, 1 / sqrt(max(s, 10^4)): `lr=0.01`, `warmup=0`, `hold=10_000`.

  Attributes:
    warmup: The update at the peak. The ramp is s / warmup, which peaks an update earlier than in
      the other schedules.
    hold: The first update of the decay, which follows the peak. Defaults to the end of the
      warm-up.
    d_model: If set, the peak is lr (d_model hold)^-0.5, as in the formula of the paper. By default
      the peak is lr.
  """

  warmup: int = 4000
  hold: int | None = None
  d_model: int | None = None

  def curve(self, step: jax.Array, steps: int) -> jax.Array:
    del steps
    s = step + 1
    hold = max(1, self.warmup if self.hold is None else self.hold)
    peak = 1.0 if self.d_model is None else (self.d_model * hold) ** -0.5
    return peak * jnp.minimum(1.0, s / max(1, self.warmup)) * jnp.sqrt(hold / jnp.maximum(s, hold))

  def check(self) -> Iterator[str]:
    yield from super().check()
    first = max(1, self.warmup)
    if self.hold is not None and self.hold < first:
      yield (
        f'hold: is {self.hold}, before the end of the warm-up of {self.warmup}. Expected {first} '
        'or more, or none.'
      )
    if self.d_model is not None and self.d_model < 1:
      yield f'd_model: is {self.d_model}. Expected 1 or more, or none for a peak of lr.'
