"""The bucketed relative bias of T5."""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.relative.base import Hooks, Relative


@dataclasses.dataclass(frozen=True)
class T5Bias(Relative):
  """A learned bias per distance bucket and head (T5, arXiv:1910.10683).

  Near distances have a bucket each, farther ones logarithmic buckets up to `far`; all distances
  beyond share the last one. As `mixer.relative` each layer has a table; as `model.shared_relative`
  the stack has one, as in T5.

  Attributes:
    buckets: the number of buckets.
    far: the distance from which on all keys share the last bucket.
    bidirectional: whether each direction has half of the buckets; None: unless the mask is causal.
    blocks: whether block summaries have a second table, by distance in blocks (LongT5; see
      `mixer.transient`).
  """

  buckets: int = 32
  far: int = 128
  bidirectional: bool | None = None
  blocks: bool = False

  def check(self) -> Iterator[str]:
    if self.buckets < 4 or self.buckets % 4:
      yield f'buckets={self.buckets} is not a positive multiple of 4. Expected for example 32.'
    if self.far <= self.buckets // 2:
      yield (
        f'far={self.far} leaves the logarithmic buckets empty. '
        f'Expected more than {self.buckets // 2}.'
      )

  @property
  def biased(self):
    return True

  @property
  def reads(self):
    return frozenset({'block'}) if self.blocks else frozenset()

  def make(self, dims):
    return _T5Bias(self, dims)


class _T5Bias(Hooks, Module):
  spec: T5Bias
  dims: Dims

  def setup(self):
    s, d = self.spec, self.dims
    init = sharded(d.init.weight('relative', s.buckets, d.heads, d), 'UN')
    self.table_UN = self.param('table', init, (s.buckets, d.heads), d.run.precision.dtype('param'))
    if s.blocks:
      dtype = d.run.precision.dtype('param')
      self.blocks_UN = self.param('blocks', init, (s.buckets, d.heads), dtype)

  def bias(self, n_heads, q, k):
    s = self.spec
    both = not self.dims.causal if s.bidirectional is None else s.bidirectional
    gap_BTS = k.positions[:, None, :] - q.positions[:, :, None]
    bias_BNTS = jnp.moveaxis(self.table_UN[bucket(gap_BTS, s.buckets, s.far, both)], -1, 1)
    if not s.blocks or k.get('block') is None:
      return bias_BNTS
    gap_BTS = k.extras['block'][:, None, :] - q.extras['block'][:, :, None]
    of_blocks_BNTS = jnp.moveaxis(self.blocks_UN[bucket(gap_BTS, s.buckets, s.far, both)], -1, 1)
    return jnp.where((k.extras['block'] >= 0)[:, None, None], of_blocks_BNTS, bias_BNTS)


def bucket(
  gap: jax.Array, buckets: int = 32, far: int = 128, bidirectional: bool = True
) -> jax.Array:
  """Return the bucket of key position - query position.

  Args:
    gap: key position - query position, int32 of any shape.
    buckets: the number of buckets.
    far: the distance from which on all keys share the last bucket.
    bidirectional: whether each direction has half of the buckets.

  Returns:
    int32 of the same shape, rounded in float32 as in the released code.
  """
  first: jax.Array | int = 0
  if bidirectional:
    buckets //= 2
    first = jnp.where(gap > 0, buckets, 0)
    gap = jnp.abs(gap)
  else:
    gap = jnp.maximum(-gap, 0)
  near = buckets // 2
  log = jnp.log(jnp.maximum(gap, 1).astype(jnp.float32) / near) / jnp.log(jnp.float32(far / near))
  distant = jnp.minimum(near + (log * (buckets - near)).astype(jnp.int32), buckets - 1)
  return first + jnp.where(gap < near, gap, distant)
