"""Transformer-XL's relative position (arXiv:1901.02860): content and distance, each with a bias a head."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core.axes import sharded
from tfm.parts.context import Dims
from tfm.parts.relative.base import Hooks, Relative


@dataclasses.dataclass(frozen=True)
class XL(Relative):
  """(q_i + u) . k_j + (q_i + v) . W s(i - j), s(d) = [sin(w d), cos(w d)], w = base^(-2h / D).

  *Cost*: 2 N D FLOPs a pair for the second term. *Differs*: sines of a difference are products of sines and cosines
  of the two positions, so no array is shifted, and any positions, tiles and caches will do.
  """

  base: float = 10_000.0

  def check(self) -> Iterator[str]:
    if self.base <= 1:
      yield f'base={self.base} does not make wavelengths longer. Wanted more than 1, usually 10000.'

  @property
  def contextual(self):
    return True

  def make(self, dims):
    return _XL(self, dims)


class _XL(Hooks, nn.Module):
  spec: XL
  dims: Dims

  def setup(self):
    d, dtype = self.dims, self.dims.run.precision.dtype('param')
    self.half = d.d_model // 2
    zeros = sharded(nn.initializers.zeros, 'NH')
    self.u_NH = self.param('u', zeros, (d.heads, d.head_dim), dtype)
    self.v_NH = self.param('v', zeros, (d.heads, d.head_dim), dtype)
    shape = (2 * self.half, d.heads, d.head_dim)
    init = d.init.weight('relative', shape[0], d.heads * d.head_dim, d)
    self.w_DNH = self.param('distance', sharded(init, 'DNH'), shape, dtype)

  def queries(self, q_BTNH, pos_BT):
    return q_BTNH + self.u_NH.astype(q_BTNH.dtype)[None, None]

  def content(self, q_BTNH, k_BSKH, q, k):
    asking_BTNH = q_BTNH + (self.v_NH - self.u_NH).astype(q_BTNH.dtype)[None, None]
    asked_BNTD = jnp.einsum('BTNH,DNH->BNTD', asking_BTNH, self.w_DNH.astype(q_BTNH.dtype)).astype(jnp.float32)
    of_sin, of_cos = jnp.split(asked_BNTD, 2, -1)
    sin_q, cos_q = (wave[:, None] for wave in self._waves(q.pos))
    sin_k, cos_k = self._waves(k.pos)
    # a sin(i - j) + b cos(i - j) = (a sin i + b cos i) cos j + (b sin i - a cos i) sin j
    rows = jnp.concatenate([of_sin * sin_q + of_cos * cos_q, of_cos * sin_q - of_sin * cos_q], -1)
    return jnp.einsum('BNTD,BSD->BNTS', rows, jnp.concatenate([cos_k, sin_k], -1))

  def _waves(self, pos_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    w_h = jnp.asarray(self.spec.base ** (-np.arange(self.half) / self.half), jnp.float32)
    angle_BTh = pos_BT[..., None].astype(jnp.float32) * w_h[None, None]
    return jnp.sin(angle_BTh), jnp.cos(angle_BTh)
