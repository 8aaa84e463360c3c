"""Weighted sums over the depth of a stack, shared by `dwa` and `dlcl`."""

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
  """One weighted sum of block outputs.

  Attributes:
    target: number of blocks after which the sum replaces the stream.
    sources: indices of the terms: 0 is the embeddings, j the output of block j.
    starts: initial weights of the terms.
  """

  target: int
  sources: tuple[int, ...]
  starts: tuple[float, ...]


#: A module as two functions: `init(key, x)` returns the parameters of `apply(params, x)`.
Pure = tuple[Callable[..., Any], Callable[..., Any]]


class Average(Module):
  """Weighted sums over depth, y_t = sum_j a_tj norm_j(x_j); without a sum for t, y_t = x_t.

  Attributes:
    sums: the sums, in the order of their targets.
    dims: sizes and settings of the model.
    norm: init and apply functions of the norm of each x_j, None for no norms.
  """

  sums: tuple[Sum, ...]
  dims: Dims
  norm: Pure | None = None

  @nn.compact
  def __call__(self) -> '_Sums':
    dims, depth = self.dims, self.dims.depth
    starts = np.concatenate([np.asarray(s.starts) for s in self.sums])
    start = sharded(lambda _, shape, dtype: jnp.asarray(starts, dtype), 'U')
    weights = self.param('weights', start, starts.shape, dims.run.precision.dtype('param'))
    # The weights as a table of sources and sums.
    slots = np.repeat(np.arange(len(self.sums)), [len(s.sources) for s in self.sums])
    sources = np.concatenate([np.asarray(s.sources) for s in self.sums])
    table = jnp.zeros((depth + 1, len(self.sums)), weights.dtype)
    shares_LU = table.at[sources, slots].set(weights)
    targets = np.asarray([s.target for s in self.sums])
    if self.norm is None:
      return _Sums(targets, shares_LU)
    init, apply = self.norm
    x_D = jnp.zeros((dims.d_model,))

    def start_norms(key: jax.Array) -> Any:
      return stacked(jax.vmap(lambda k: init(k, x_D))(jax.random.split(key, depth + 1)))

    norms = self.param('norms', start_norms)
    apply_norm = lambda x_BTD, t: apply(jax.tree.map(lambda a: a[t], norms), x_BTD)
    return _Sums(targets, shares_LU, apply_norm)


@dataclasses.dataclass(frozen=True)
class _Sums:
  """Running sums over x_j, updated after each block.

  The backward pass of a scan saves each x_j once. A buffer of all x_j would be saved once per
  repeat.
  """

  targets: np.ndarray
  shares_LU: jax.Array
  norm: Callable[[jax.Array, jax.Array], jax.Array] | None = None

  def start(self, x_BTD):
    sums_UBTD = jnp.zeros((len(self.targets), *x_BTD.shape), x_BTD.dtype)
    return self._next(x_BTD, sums_UBTD, jnp.int32(0))

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
    slots = np.searchsorted(self.targets, np.arange(len(self.shares_LU)))
    slot = jnp.asarray(slots.clip(max=len(self.targets) - 1))[t]
    sum_BTD = jax.lax.dynamic_index_in_dim(sums_UBTD, slot, keepdims=False)
    return jnp.where(jnp.asarray(self.targets)[slot] == t, sum_BTD, x_BTD), sums_UBTD
