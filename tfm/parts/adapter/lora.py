"""Low-rank adaptation."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.adapter.base import Adapter
from tfm.parts.contract import contract


@dataclasses.dataclass(frozen=True)
class LoRA(Adapter):
  """Low-rank adaptation, x W + (alpha / rank) x A B (arXiv:2106.09685).

  The parameters are stored with the projection: `mixer/q/lora/a` and `mixer/q/lora/b`. To train
  only them, use `optim.only=*/lora/*`. A starts with variance 1 / inputs, B at 0.

  Note:
    There is no dropout of x. Projections of experts are not adapted.

  Attributes:
    rank: columns of A.
    alpha: numerator of the scale.
    targets: roles of the adapted projections.
    stable: divide by sqrt(rank) in place of rank (rsLoRA, arXiv:2312.03732).
  """

  rank: int = 8
  alpha: float = 16.0
  targets: tuple[str, ...] = ('q', 'v')
  stable: bool = False

  def check(self) -> Iterator[str]:
    if self.rank < 1:
      yield f'rank={self.rank} is too small. Expected at least 1.'
    if not self.targets:
      yield (
        'targets is empty. Expected some of q, k, v, o, gate, up, down, or adapter=none for no '
        'adapter.'
      )

  @property
  def factor(self) -> float:
    """Factor of x A B."""
    return self.alpha / (math.sqrt(self.rank) if self.stable else self.rank)

  def wraps(self, role):
    return role in self.targets

  def make(self, letters, shape, n_in, dims):
    return _LoRA(self, letters, shape, n_in, dims, name='lora')

  def merge(self, kernel, params, n_in):
    a, b = params['a'].astype(jnp.float32), params['b'].astype(jnp.float32)
    added = jnp.tensordot(a, b, 1) * self.factor
    return (kernel.astype(jnp.float32) + added).astype(kernel.dtype)


class _LoRA(Module):
  spec: LoRA
  letters: str
  shape: tuple[int, ...]
  n_in: int
  dims: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    s, n_in = self.spec, self.n_in
    dtype = self.dims.run.precision.dtype('param')
    inputs, outputs = self.shape[:n_in], self.shape[n_in:]
    normal = lambda key, shape, dtype: (
      jax.random.normal(key, shape, dtype) / math.sqrt(math.prod(inputs))
    )
    a = self.param('a', sharded(normal, f'{self.letters[:n_in]}R'), (*inputs, s.rank), dtype)
    b = self.param(
      'b', sharded(nn.initializers.zeros, f'R{self.letters[n_in:]}'), (s.rank, *outputs), dtype
    )
    return contract(contract(x, a.astype(x.dtype), n_in), b.astype(x.dtype)) * s.factor
