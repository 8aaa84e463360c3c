"""A projection whose matrix is block-diagonal: each group of inputs contributes to its own group of
outputs.
"""

import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dense import Dense


class GroupedDense(Module):
  """y = x W + b with a block-diagonal W, as a convolution of width 1 with groups computes it.

  Attributes:
    shape: of one token's input and of its output, such as (D, N, H).
    groups: the number of blocks. It must divide the numbers of inputs and of outputs.
    n_in: how many axes of `shape` are inputs.
    bias: add b.
  """

  shape: tuple[int, ...]
  dims: Dims
  groups: int
  n_in: int = 1
  bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, sizes_E: Any = None) -> jax.Array:
    assert sizes_E is None, 'no experts are made of grouped projections'
    name, G, outs = self.name or '', self.groups, self.shape[self.n_in :]
    if self.dims.adapter.wraps(name):
      raise errors.UserError(
        f'adapter: {name} is a grouped projection, which takes no adapter. Expected targets '
        f'without {name}.'
      )
    dtype = self.dims.run.precision.dtype('param')
    D, F = math.prod(self.shape[: self.n_in]) // G, math.prod(outs) // G
    init = self.dims.init.weight(name, D, F, self.dims)
    blocks_GDF = self.param('blocks', sharded(init, 'GDF'), (G, D, F), dtype).astype(x.dtype)
    lead = x.shape[: x.ndim - self.n_in]
    y = jnp.einsum('...gi,gio->...go', x.reshape(*lead, G, D), blocks_GDF).reshape(*lead, G * F)
    if self.bias:
      bias = self.param('bias', sharded(nn.initializers.zeros, 'F'), (G * F,), dtype).astype(
        x.dtype
      )
      y = y + trailing(bias, y.ndim)
    return y.reshape(*lead, *outs)


def grouped(
  letters: str,
  shape: tuple[int, ...],
  dims: Dims,
  name: str,
  groups: int,
  n_in: int = 1,
  bias: bool = True,
) -> Any:
  """Return the projection of a name: a `GroupedDense`, or a `Dense` of these letters for one group."""
  if groups == 1:
    return Dense(letters, shape, dims, n_in, bias, name=name)
  return GroupedDense(shape, dims, groups, n_in, bias, name=name)


def misfits(where: str, groups: int, *sizes: int) -> str | None:
  """Return a sentence if the number of groups does not divide all of these sizes."""
  if groups >= 1 and not any(size % groups for size in sizes):
    return None
  listed = ' and '.join(map(str, sizes))
  return f'{where}={groups} does not divide {listed}. Expected a common divisor.'
