"""Fixed waves of geometric wavelengths (Attention is all you need, arXiv:1706.03762)."""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from tfm.parts.absolute.base import Absolute

Layout = Literal['interleaved', 'halves', 't2t']


@dataclasses.dataclass(frozen=True)
class Sinusoidal(Absolute):
  """x + [sin(w pos), cos(w pos)], w = base^(-2k / D).

  `layout`: 'interleaved' sin and cos alternate (the paper); 'halves' all sines, then all cosines
  (Marian); 't2t' halves whose wavelengths are spaced over D / 2 - 1 steps (tensor2tensor, FSMT,
  Whisper). `max_len` is the longest row that is to be told, None any: longer ones are refused, as
  by a table."""

  layout: Layout = 'interleaved'
  base: float = 10_000.0
  offset: int = 0
  max_len: int | None = None

  @property
  def max_positions(self):
    return self.max_len

  def check(self) -> Iterator[str]:
    if self.base <= 1:
      yield f'base={self.base} does not make wavelengths longer. Expected more than 1, usually 10000.'

  def __call__(self, x_BTD, pos_BT):
    return x_BTD + waves(pos_BT + self.offset, x_BTD.shape[-1], self.layout, self.base).astype(
      x_BTD.dtype
    )


def waves(pos_BT: jax.Array, D: int, layout: Layout, base: float = 10_000.0) -> jax.Array:
  """Return sines and cosines of positions, float32 `[B, T, D]`, with the layouts of `Sinusoidal`."""
  half = D // 2
  steps = max(half - 1, 1) if layout == 't2t' else D / 2
  w_h = jnp.asarray(base ** (-np.arange(half) / steps), jnp.float32)
  angle_BTh = pos_BT[..., None].astype(jnp.float32) * w_h[None, None]
  sin, cos = jnp.sin(angle_BTh), jnp.cos(angle_BTh)
  if layout == 'interleaved':
    wave_BTD = jnp.stack([sin, cos], -1).reshape(*pos_BT.shape, 2 * half)
  else:
    wave_BTD = jnp.concatenate([sin, cos], -1)
  return jnp.pad(wave_BTD, ((0, 0), (0, 0), (0, D - 2 * half)))
