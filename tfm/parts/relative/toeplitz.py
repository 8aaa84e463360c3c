"""A learned bias for every distance (music transformers, NATTEN, some ViTs)."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.relative.base import Hooks, Relative
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Toeplitz(Relative):
  """A learned bias table[clip(j - i, -far, far), head] of query i and key j.

  NATTEN and some ViTs use it.

  Attributes:
    far: the maximum distance.
  """

  far: int = 128

  def check(self) -> Iterator[str]:
    yield from check_far(self.far)

  @property
  def biased(self):
    return True

  def make(self, dims):
    return _Toeplitz(self, dims)


class _Toeplitz(Hooks, Module):
  spec: Toeplitz
  dims: Dims

  def setup(self):
    shape = (2 * self.spec.far + 1, self.dims.heads)
    init = sharded(self.dims.init.weight('relative', *shape, self.dims), 'UN')
    self.table_UN = self.param('table', init, shape, self.dims.run.precision.dtype('param'))

  def bias(self, n_heads, q, k):
    return jnp.moveaxis(self.table_UN[distance(q.rows(), k.columns(), self.spec.far)], -1, 1)


def distance(q: TokenInfo, k: TokenInfo, far: int) -> jax.Array:
  """Return clip(j - i, -far, far) + far, the entry of a table of 2 far + 1 distances.

  Args:
    q: the queries.
    k: the keys; its arrays must broadcast against the arrays of `q`.
    far: the maximum distance.

  Returns:
    int32 of the broadcast shape.
  """
  return jnp.clip(k.positions - q.positions, -far, far) + far


def check_far(far: int) -> Iterator[str]:
  """Yield a sentence if `far` is not a distance."""
  if far < 1:
    yield f'far={far} is not a distance. Expected at least 1.'
