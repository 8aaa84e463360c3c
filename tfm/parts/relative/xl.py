"""Transformer-XL's relative position (arXiv:1901.02860): content and distance, each with a bias a
head; and XLNet's.
"""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.relative.base import Hooks, Relative
from tfm.parts.term import Asked, Product
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class XL(Relative):
  """(q_i + u) . k_j + (q_i + v) . W s(i - j), s(d) = [sin(w d), cos(w d)], w = base^(-2h / D).

  With `types` there is beside it (q_i + t) . e, e one of two vectors a head: for tokens of the same
  type, or of different ones (XLNet's relative segments, arXiv:1906.08237). Nothing is added where
  `apply` is told no types.

  *Cost*: 2 N D FLOPs a pair for the second term. *Differs*: sines of a difference are products of
  sines and cosines of the two positions, so no array is shifted, and any positions, tiles and
  caches will do."""

  base: float = 10_000.0
  types: bool = False

  def check(self) -> Iterator[str]:
    if self.base <= 1:
      yield f'base={self.base} does not make wavelengths longer. Expected more than 1, usually 10000.'

  @property
  def contextual(self):
    return True

  @property
  def reads(self):
    return frozenset({'type'}) if self.types else frozenset()

  def make(self, dims):
    return _XL(self, dims)


class _XL(Hooks, Module):
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
    if self.spec.types:
      shape = (2, d.heads, d.head_dim)
      init = d.init.weight('types', 2, d.heads * d.head_dim, d)
      self.t_NH = self.param('t', zeros, shape[1:], dtype)
      self.e_YNH = self.param('types', sharded(init, 'YNH'), shape, dtype)

  def queries(self, q_BTNH, pos_BT):
    return q_BTNH + self.u_NH.astype(q_BTNH.dtype)[None, None]

  def content(self, q_BTNH, k_BSKH, q, k):
    asking_BTNH = self._biased(q_BTNH, self.v_NH)
    asked_BNTD = jnp.einsum('BTNH,DNH->BNTD', asking_BTNH, self.w_DNH.astype(q_BTNH.dtype)).astype(
      jnp.float32
    )
    of_sin, of_cos = jnp.split(asked_BNTD, 2, -1)
    sin_q, cos_q = (wave[:, None] for wave in self._waves(q.positions))
    sin_k, cos_k = (wave[:, None] for wave in self._waves(k.positions))
    # a sin(i - j) + b cos(i - j) = (a sin i + b cos i) cos j + (b sin i - a cos i) sin j
    rows = jnp.concatenate([of_sin * sin_q + of_cos * cos_q, of_cos * sin_q - of_sin * cos_q], -1)
    of_distance = Product(rows, jnp.concatenate([cos_k, sin_k], -1), constant=True)
    if not self.spec.types or q.get('type') is None:
      return (of_distance,)
    of_type_BNTY = jnp.einsum(
      'BTNH,YNH->BNTY', self._biased(q_BTNH, self.t_NH), self.e_YNH.astype(q_BTNH.dtype)
    )
    return of_distance, Asked(of_type_BNTY.astype(jnp.float32), _differ)

  def _biased(self, q_BTNH: jax.Array, bias_NH: jax.Array) -> jax.Array:
    """Queries with this bias in place of the one that `queries` has added."""
    return q_BTNH + (bias_NH - self.u_NH).astype(q_BTNH.dtype)[None, None]

  def _waves(self, pos_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    w_h = jnp.asarray(self.spec.base ** (-np.arange(self.half) / self.half), jnp.float32)
    angle_BTh = pos_BT[..., None].astype(jnp.float32) * w_h[None, None]
    return jnp.sin(angle_BTh), jnp.cos(angle_BTh)


def _differ(q: TokenInfo, k: TokenInfo) -> jax.Array:
  """0 for tokens of the same type, 1 for others."""
  return jnp.asarray(q.extras['type'] != k.extras['type']).astype(jnp.int32)
