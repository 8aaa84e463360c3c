"""Fixed sinusoidal position encoding."""

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
  """Sinusoidal position encoding, fixed (arXiv:1706.03762).

  Adds sin(w position) and cos(w position) for the frequencies w = base^(-2k / D).

  Attributes:
    layout: order of the channels. 'interleaved' alternates sine and cosine (the paper). 'halves'
      has all sines first (Marian). 't2t' is as 'halves', with wavelengths spaced over D / 2 - 1
      steps (tensor2tensor, FSMT, Whisper).
    base: largest wavelength divided by 2 pi.
    offset: added to every position.
    max_len: largest number of positions, None for no limit.
  """

  layout: Layout = 'interleaved'
  base: float = 10_000.0
  offset: int = 0
  max_len: int | None = None

  @property
  def max_positions(self):
    return self.max_len

  def check(self) -> Iterator[str]:
    if self.base <= 1:
      yield f'base={self.base} is too small. Expected more than 1, usually 10000.'

  def __call__(self, x_BTD, pos_BT):
    wave_BTD = waves(pos_BT + self.offset, x_BTD.shape[-1], self.layout, self.base)
    return x_BTD + wave_BTD.astype(x_BTD.dtype)


def waves(pos_BT: jax.Array, D: int, layout: Layout, base: float = 10_000.0) -> jax.Array:
  """Return sines and cosines of positions.

  Args:
    pos_BT: positions, int.
    D: number of channels. With an odd number the last channel is 0.
    layout: order of the channels, as in `Sinusoidal`.
    base: largest wavelength divided by 2 pi.

  Returns:
    float32 `[B, T, D]`.
  """
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
