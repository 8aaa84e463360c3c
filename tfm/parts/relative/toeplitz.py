"""A learned bias for every distance (the relative encodings of music transformers, NATTEN and many
a ViT).
"""

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
  """table[clip(j - i, -far, far), head] is added to the score of query i and key j."""

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
  """clip(j - i, -far, far) + far of infos that broadcast, int32: the row of a table of 2 far + 1
  distances.
  """
  return jnp.clip(k.positions - q.positions, -far, far) + far


def check_far(far: int) -> Iterator[str]:
  """A sentence for a `far` that is no distance."""
  if far < 1:
    yield f'far={far} tells no distance from another. Expected at least 1.'
