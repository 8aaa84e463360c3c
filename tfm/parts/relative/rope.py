"""Rotary position embedding (RoPE)."""

from collections.abc import Iterator
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from tfm.parts.relative.base import Relative
from tfm.parts.relative.scaling.base import Scaling
from tfm.parts.term import Product


@dataclasses.dataclass(frozen=True)
class RoPE(Relative):
  """Rotary position embedding of queries and keys (RoFormer, arXiv:2104.09864).

  Pair h of a head is rotated by pos * base^(-2h / d), over the first d = `fraction` H entries.
  Angles are float32 whatever the compute dtype.

  Attributes:
    base: the base of the wavelengths.
    layout: the entries of pair h: 'halves' is (h, h + d/2), as in GPT-NeoX and Hugging Face's
      Llama; 'interleaved' is (2h, 2h + 1), as in GPT-J, Cohere and Meta's Llama.
    fraction: the share of a head that is rotated.
    scaling: a change of the frequencies for long contexts.
    far: the maximum distance; farther keys count as at this distance (LM-Infinite,
      arXiv:2308.16137), which doubles the cost of the scores. None: no maximum.
    max_len: the maximum sequence length; longer sequences raise an error. None: no maximum.
  """

  base: float = 10_000.0
  layout: Literal['halves', 'interleaved'] = 'halves'
  fraction: float = 1.0
  scaling: Scaling = Scaling()
  far: int | None = None
  max_len: int | None = None

  def check(self) -> Iterator[str]:
    if not 0 < self.fraction <= 1:
      yield (
        f'fraction={self.fraction} is not a share of a head. Expected more than 0 and at most 1.'
      )
    if self.base <= 1:
      yield f'base={self.base} does not increase wavelengths. Expected more than 1, usually 10000.'
    if self.far is not None and self.far < 1:
      yield f'far={self.far} is not a distance. Expected at least 1, or none.'

  @property
  def contextual(self):
    return self.far is not None

  @property
  def max_positions(self):
    limits = [n for n in (self.max_len, self.scaling.max_positions) if n is not None]
    return min(limits, default=None)

  def fits(self, head_dim):
    d = self.rotated(head_dim)
    if d < 2 or d % 2:
      yield (
        f'{d} of {head_dim} entries of a head cannot be rotated in pairs. '
        f'Expected an even number of at least 2.'
      )
    yield from (f'scaling: {m}' for m in self.scaling.fits(d // 2))

  @property
  def score_scale(self):
    return self.scaling.score_scale

  def rotated(self, head_dim: int) -> int:
    """Return d, the number of rotated entries of a head."""
    return int(head_dim * self.fraction)

  def rotate(self, x_BTNH, pos_BT):
    d = self.rotated(x_BTNH.shape[-1])
    cos, sin = self.angles(d, pos_BT)
    cos, sin = cos[:, :, None], sin[:, :, None]
    x_BTNd, rest = x_BTNH[..., :d].astype(jnp.float32), x_BTNH[..., d:]
    if self.layout == 'halves':
      a, b = jnp.split(x_BTNd, 2, -1)
      y_BTNd = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    else:
      a, b = x_BTNd[..., ::2], x_BTNd[..., 1::2]
      y_BTNd = jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x_BTNd.shape)
    y_BTNd = y_BTNd.astype(x_BTNH.dtype)
    return jnp.concatenate([y_BTNd, rest], -1) if rest.shape[-1] else y_BTNd

  def content(self, q_BTNH, k_BSKH, q, k):
    assert self.far is not None
    far = self.far
    # Move keys to position 0 and queries to position `far`, and subtract the exact score.
    a_BTNX = jnp.concatenate([self.rotate(q_BTNH, far - q.positions), -q_BTNH], -1)
    b_BSKX = jnp.concatenate([self.rotate(k_BSKH, -k.positions), k_BSKH], -1)
    return (
      Product(
        jnp.moveaxis(a_BTNX, 1, 2),
        jnp.moveaxis(b_BSKX, 1, 2),
        lambda q, k: q.positions - k.positions > far,
      ),
    )

  def angles(self, d: int, pos_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return cos and sin for every position, `[B, T, d / 2]` in float32."""
    frequency_h, factor = self.scaling.scale(
      self.base ** (-np.arange(0, d, 2, dtype=np.float64) / d), self.base
    )
    angle_BTh = (
      pos_BT[..., None].astype(jnp.float32) * jnp.asarray(frequency_h, jnp.float32)[None, None]
    )
    return jnp.cos(angle_BTh) * factor, jnp.sin(angle_BTh) * factor
