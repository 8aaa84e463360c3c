"""The relative positions of Transformer-XL and XLNet."""

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
from tfm.parts.term import Product, QueryLookup
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class XL(Relative):
  """Sinusoidal distances with learned biases of content and position (arXiv:1901.02860).

  Scores are (q_i + u) . k_j + (q_i + v) . W s(i - j), with s(d) = [sin(w d), cos(w d)] and w =
  base^(-2h / D). The second term costs 2 N D FLOPs per pair.

  Attributes:
    base: the base of the wavelengths.
    types: whether to add (q_i + t) . e, with one vector e per head for pairs of the same token type
      and one for other pairs (XLNet, arXiv:1906.08237). Without the input token types the term is
      0.

  Note:
    The paper shifts an array of distances. Here sin and cos of a difference are expanded into
    products of sin and cos of both positions, so any positions, tiles and caches work.
  """

  base: float = 10_000.0
  types: bool = False

  def check(self) -> Iterator[str]:
    if self.base <= 1:
      yield f'base={self.base} does not increase wavelengths. Expected more than 1, usually 10000.'

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
    biased_BTNH = self._biased(q_BTNH, self.v_NH)
    w_DNH = self.w_DNH.astype(q_BTNH.dtype)
    wave_BNTD = jnp.einsum('BTNH,DNH->BNTD', biased_BTNH, w_DNH).astype(jnp.float32)
    of_sin, of_cos = jnp.split(wave_BNTD, 2, -1)
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
    return of_distance, QueryLookup(of_type_BNTY.astype(jnp.float32), _differ)

  def _biased(self, q_BTNH: jax.Array, bias_NH: jax.Array) -> jax.Array:
    """Return queries with this bias instead of the bias that `queries` added."""
    return q_BTNH + (bias_NH - self.u_NH).astype(q_BTNH.dtype)[None, None]

  def _waves(self, pos_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    w_h = jnp.asarray(self.spec.base ** (-np.arange(self.half) / self.half), jnp.float32)
    angle_BTh = pos_BT[..., None].astype(jnp.float32) * w_h[None, None]
    return jnp.sin(angle_BTh), jnp.cos(angle_BTh)


def _differ(q: TokenInfo, k: TokenInfo) -> jax.Array:
  """Return 0 for pairs of the same type, 1 for others."""
  return jnp.asarray(q.extras['type'] != k.extras['type']).astype(jnp.int32)
