"""Untied position correlations (TUPE)."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.relative.base import Hooks, Relative
from tfm.parts.term import Product
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class TUPE(Relative):
  """Position correlations with separate projections (arXiv:2006.15595).

  Scores are q_i . k_j / sqrt(2 H) + (p_i U_q) . (p_j U_k) / sqrt(2 H), where p is a learned vector
  per position. q and k are each divided by 2^(1/4) to give both terms equal weight, whatever the
  mixer's scale. As `model.shared_relative` all layers share the projections U, as in the paper.

  Attributes:
    length: the number of positions.
    reset: whether a learned scalar per head and direction replaces the position term from and to
      position 0, the [CLS] token.
  """

  length: int = 512
  reset: bool = True

  def check(self) -> Iterator[str]:
    if self.length < 1:
      yield f'length={self.length} is not a number of positions. Expected at least 1.'

  @property
  def biased(self):
    return self.reset

  @property
  def placed(self):
    return True

  @property
  def max_positions(self):
    return self.length

  def make(self, dims):
    return _TUPE(self, dims)


class _TUPE(Hooks, Module):
  spec: TUPE
  dims: Dims

  def setup(self):
    d, dtype, P = self.dims, self.dims.run.precision.dtype('param'), self.spec.length
    shape = (d.d_model, d.heads, d.head_dim or d.d_model // d.heads)
    weight = lambda name, letters, sizes, n_out: self.param(
      name, sharded(d.init.weight('relative', sizes[0], n_out, d), letters), sizes, dtype
    )
    p_PD = weight('position', 'PD', (P, d.d_model), d.d_model)
    project = lambda name: jnp.einsum(
      'PD,DNH->PNH', p_PD, weight(name, 'DNH', shape, shape[1] * shape[2])
    )
    # Computed once, so that tiled kernels only look them up.
    self.q_PNH, self.k_PNH = project('q') * (2 * shape[2]) ** -0.5, project('k')
    if self.spec.reset:
      self.from_N = self.param('from', sharded(nn.initializers.zeros, 'N'), (d.heads,), dtype)
      self.to_N = self.param('to', sharded(nn.initializers.zeros, 'N'), (d.heads,), dtype)

  def rotate(self, x_BTNH, pos_BT):
    return x_BTNH * jnp.asarray(2**-0.25, x_BTNH.dtype)

  def product(self, q, k):
    def gathered(x_PNH: jax.Array, info: TokenInfo) -> jax.Array:
      x_BNTH = jnp.moveaxis(x_PNH[info.positions], 2, 1)
      if not self.spec.reset:
        return x_BNTH
      return jnp.where((info.positions > 0)[:, None, :, None], x_BNTH, 0)

    return Product(gathered(self.q_PNH, q), gathered(self.k_PNH, k))

  def bias(self, n_heads, q, k):
    each = lambda x_N: x_N[None, :, None, None]
    to_BNTS = jnp.where((k.positions == 0)[:, None, None, :], each(self.to_N), 0)
    return jnp.where((q.positions == 0)[:, None, :, None], each(self.from_N), to_BNTS)
