"""Linear projections with a block-diagonal matrix."""

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
  """Block-diagonal projection, y = x W + b, equal to a grouped convolution of width 1.

  Attributes:
    shape: sizes of the input and output axes of one token, such as (D, N, H).
    dims: sizes and settings of the model.
    groups: number of blocks. It must divide the number of inputs and of outputs.
    n_in: number of input axes in `shape`.
    bias: whether b is added.
  """

  shape: tuple[int, ...]
  dims: Dims
  groups: int
  n_in: int = 1
  bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, sizes_E: Any = None) -> jax.Array:
    assert sizes_E is None, 'grouped projections cannot be stacked to experts'
    name, G, outs = self.name or '', self.groups, self.shape[self.n_in :]
    if self.dims.adapter.wraps(name):
      raise errors.UserError(
        f'adapter: {name} is a grouped projection, which does not support adapters. '
        f'Expected targets without {name}.'
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
  """Return a `GroupedDense` projection, or a `Dense` one for a single group.

  Args:
    letters: axis letters of the weight of `Dense`.
    shape: sizes of the input and output axes of one token.
    dims: sizes and settings of the model.
    name: name of the parameters.
    groups: number of blocks.
    n_in: number of input axes in `shape`.
    bias: whether a bias is added.

  Returns:
    The module.
  """
  if groups == 1:
    return Dense(letters, shape, dims, n_in, bias, name=name)
  return GroupedDense(shape, dims, groups, n_in, bias, name=name)


def misfits(where: str, groups: int, *sizes: int) -> str | None:
  """Return a message if the number of groups does not divide all sizes, else None."""
  if groups >= 1 and not any(size % groups for size in sizes):
    return None
  listed = ' and '.join(map(str, sizes))
  return f'{where}={groups} does not divide {listed}. Expected a common divisor.'
