"""Weighted sums over the depth of a stack: what `dwa` and `dlcl` have in common."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core.axes import sharded, stacked
from tfm.core.module import Module
from tfm.parts.context import Dims


class Sum(NamedTuple):
  """What is read after `target` blocks: a sum over `sources` (0 the embeddings, j what block j
  wrote).
  """

  target: int
  sources: tuple[int, ...]
  starts: tuple[float, ...]


#: A module as two functions: `init(key, x)` gives parameters that `apply(params, x)` takes.
Pure = tuple[Callable[..., Any], Callable[..., Any]]


class Average(Module):
  """y_t = sum_j a_tj norm_j(x_j); where t is no target, y_t = x_t. Its parameters are the a, then
  the norms'.
  """

  sums: tuple[Sum, ...]
  dims: Dims
  norm: Pure | None = None

  @nn.compact
  def __call__(self) -> '_Sums':
    dims, depth = self.dims, self.dims.depth
    starts = np.asarray([start for s in self.sums for start in s.starts])
    start = sharded(lambda _, shape, dtype: jnp.asarray(starts, dtype), 'U')
    weights = self.param('weights', start, starts.shape, dims.run.precision.dtype('param'))
    # As a table: what each source gives to each sum.
    slots = [u for u, s in enumerate(self.sums) for _ in s.sources]
    sources = [j for s in self.sums for j in s.sources]
    table = jnp.zeros((depth + 1, len(self.sums)), weights.dtype)
    shares_LU = table.at[np.asarray(sources), np.asarray(slots)].set(weights)
    targets = np.asarray([s.target for s in self.sums])
    if self.norm is None:
      return _Sums(targets, shares_LU)
    init, apply = self.norm
    x_D, many = jnp.zeros((dims.d_model,)), lambda key: jax.random.split(key, depth + 1)
    norms = self.param('norms', lambda key: stacked(jax.vmap(lambda k: init(k, x_D))(many(key))))
    return _Sums(
      targets, shares_LU, lambda x_BTD, t: apply(jax.tree.map(lambda a: a[t], norms), x_BTD)
    )


@dataclasses.dataclass(frozen=True)
class _Sums:
  """Every x_j is added to all the sums as soon as it is there.

  So the backward pass of a scan keeps each x_j once; of a buffer of all x_j it would keep one for
  every repeat."""

  targets: np.ndarray
  shares_LU: jax.Array
  norm: Callable[[jax.Array, jax.Array], jax.Array] | None = None

  def start(self, x_BTD):
    return self._next(
      x_BTD, jnp.zeros((len(self.targets), *x_BTD.shape), x_BTD.dtype), jnp.int32(0)
    )

  def join(self, residual_layout, x_BTD, carry, branches, norm, ctx):
    return residual_layout(x_BTD, branches, norm), carry

  def after(self, x_BTD, carry, layer):
    return self._next(x_BTD, carry, layer + 1)

  def end(self, x_BTD, carry):
    return x_BTD

  def _next(
    self, x_BTD: jax.Array, sums_UBTD: jax.Array, t: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    y_BTD = x_BTD if self.norm is None else self.norm(x_BTD, t)
    share_U = self.shares_LU[t].astype(x_BTD.dtype)
    sums_UBTD = sums_UBTD + share_U[:, None, None, None] * y_BTD[None]
    slot = jnp.asarray(
      np.searchsorted(self.targets, np.arange(len(self.shares_LU))).clip(max=len(self.targets) - 1)
    )[t]
    read_BTD = jax.lax.dynamic_index_in_dim(sums_UBTD, slot, keepdims=False)
    return jnp.where(jnp.asarray(self.targets)[slot] == t, read_BTD, x_BTD), sums_UBTD
