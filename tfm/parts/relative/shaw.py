"""Relative position vectors added to keys and values (Shaw et al.)."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.attend.value_table import ValueTable
from tfm.parts.context import Dims
from tfm.parts.relative.base import Hooks, Relative
from tfm.parts.relative.toeplitz import check_far, distance
from tfm.parts.term import QueryLookup


@dataclasses.dataclass(frozen=True)
class Shaw(Relative):
  """Learned vectors by clipped distance, added to keys and optionally to values (arXiv:1803.02155).

  Scores are q_i . (k_j + a[clip(j - i, -far, far)]), with a table of 2 far + 1 vectors that all
  heads share. They cost 2 N H (2 far + 1) FLOPs per query and a lookup per pair and head.

  Attributes:
    far: the maximum distance.
    values: whether outputs are sum_j p_ij (v_j + b[clip(j - i, -far, far)]) with a second table b.
      It doubles the FLOPs and adds an addition per pair and head. The paper found no difference.
  """

  far: int = 16
  values: bool = False

  def check(self) -> Iterator[str]:
    yield from check_far(self.far)

  @property
  def contextual(self):
    return True

  @property
  def valued(self):
    return self.values

  def make(self, dims):
    return _Shaw(self, dims)


class _Shaw(Hooks, Module):
  spec: Shaw
  dims: Dims

  def setup(self):
    d = self.dims
    self.table_UH = self._table('table', d.head_dim)
    if self.spec.values:
      self.values_UH = self._table('values', d.value_dim)

  def content(self, q_BTNH, k_BSKH, q, k):
    score_BNTU = jnp.einsum('BTNH,UH->BNTU', q_BTNH, self.table_UH.astype(q_BTNH.dtype))
    return (QueryLookup(score_BNTU, lambda q, k: distance(q, k, self.spec.far)),)

  def value_table(self):
    if self.spec.values:
      return ValueTable(lambda q, k: distance(q.rows(), k.columns(), self.spec.far), self.values_UH)
    return None

  def _table(self, name: str, size: int) -> jax.Array:
    d, shape = self.dims, (2 * self.spec.far + 1, size)
    init = sharded(d.init.weight('relative', *shape, d), 'UH')
    return self.param(name, init, shape, d.run.precision.dtype('param'))
