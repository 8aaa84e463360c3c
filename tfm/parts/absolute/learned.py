"""A learned table, one row per position (GPT-2, BERT)."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.absolute.base import Absolute
from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Learned(Absolute):
  """x + table[pos + offset]; `offset` rows are never used (RoBERTa 2, OPT 2).

  *Raises*: `tfm.apply` refuses rows longer than the table; a position beyond it is NaN, never clamped.
  """

  max_len: int = 1024
  offset: int = 0

  @property
  def max_positions(self):
    return self.max_len

  def make(self, dims):
    return _Learned(self, dims)


class _Learned(Module):
  spec: Learned
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, pos_BT: jax.Array) -> jax.Array:
    s, d = self.spec, self.dims
    shape = (s.max_len + s.offset, d.d_model)
    init = sharded(d.init.weight('positions', shape[0], d.d_model, d), 'PD')
    table_PD = self.param('table', init, shape, d.run.precision.dtype('param'))
    rows_BTD = jnp.take(table_PD, pos_BT + s.offset, axis=0, mode='fill', fill_value=jnp.nan)
    return x_BTD + rows_BTD.astype(x_BTD.dtype)
