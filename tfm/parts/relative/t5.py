"""Bucketed relative bias, learned per head (T5, arXiv:1910.10683)."""

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
  """table[bucket(k - q), head]: near distances a bucket each, then logarithmic ones up to `far`,
  all beyond in the last.

  Under a causal mask every bucket looks back; otherwise (or by `bidirectional`) each direction has
  half of them. As `mixer.relative` a table per layer; as `model.shared_relative` one table for the
  stack, as in T5. With `blocks` a second one tells of keys that stand for blocks, by distance in
  blocks (LongT5; see `mixer.transient`)."""

  buckets: int = 32
  far: int = 128
  bidirectional: bool | None = None
  blocks: bool = False

  def check(self) -> Iterator[str]:
    if self.buckets < 4 or self.buckets % 4:
      yield f'buckets={self.buckets} cannot be halved twice. Expected a multiple of 4.'
    if self.far <= self.buckets // 2:
      yield f'far={self.far} leaves no distance to the logarithmic buckets. Expected more than {self.buckets // 2}.'

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
      self.blocks_UN = self.param(
        'blocks', init, (s.buckets, d.heads), d.run.precision.dtype('param')
      )

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
  """The bucket of key position - query position, as the released code rounds it (in float32)."""
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
