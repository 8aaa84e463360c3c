"""Distances that queries ask for by content (Shaw et al., arXiv:1803.02155)."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.parts.context import Dims
from tfm.parts.relative.base import Hooks, Relative
from tfm.parts.relative.toeplitz import check_far, distance


@dataclasses.dataclass(frozen=True)
class Shaw(Relative):
  """q_i . (k_j + a[clip(j - i, -far, far)]), the table of 2 far + 1 vectors shared by the heads.

  *Cost*: 2 N H (2 far + 1) FLOPs a query, and a look-up a pair.

  *Differs*: the paper's second table, added to the values, is left out; it found that one to make no difference.
  """

  far: int = 16

  def check(self) -> Iterator[str]:
    yield from check_far(self.far)

  @property
  def contextual(self):
    return True

  def make(self, dims):
    return _Shaw(self, dims)


class _Shaw(Hooks, nn.Module):
  spec: Shaw
  dims: Dims

  def setup(self):
    shape = (2 * self.spec.far + 1, self.dims.head_dim)
    init = sharded(self.dims.init.weight('relative', *shape, self.dims), 'UH')
    self.table_UH = self.param('table', init, shape, self.dims.run.precision.dtype('param'))

  def content(self, q_BTNH, k_BSKH, q, k):
    asked_BNTU = jnp.einsum('BTNH,UH->BNTU', q_BTNH, self.table_UH.astype(q_BTNH.dtype))
    return jnp.take_along_axis(asked_BNTU, distance(q, k, self.spec.far)[:, None], axis=-1)
