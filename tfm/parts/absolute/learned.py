"""A learned table, one row per position (GPT-2, BERT)."""

import dataclasses
from typing import Literal

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.absolute.base import Absolute
from tfm.parts.absolute.sinusoidal import Layout, waves
from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Learned(Absolute):
  """x + table[pos + offset]; `offset` rows are never used (RoBERTa 2, OPT 2).

  `start` is what the table starts as: 'noise', or sinusoids in a layout of `Sinusoidal` (Whisper's
  encoder, whose published code stores the table and does not train it; here it is a parameter like
  any other).

  *Raises*: `tfm.apply` refuses rows longer than the table; a position beyond it is NaN, never
  clamped."""

  max_len: int = 1024
  offset: int = 0
  start: Literal['noise', 'interleaved', 'halves', 't2t'] = 'noise'

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
    init = d.init.weight('positions', shape[0], d.d_model, d)
    if s.start != 'noise':
      layout: Layout = s.start
      init = lambda _, shape, dtype: waves(jnp.arange(shape[0])[None] - s.offset, shape[1], layout)[
        0
      ].astype(dtype)
    table_PD = self.param('table', sharded(init, 'PD'), shape, d.run.precision.dtype('param'))
    rows_BTD = jnp.take(table_PD, pos_BT + s.offset, axis=0, mode='fill', fill_value=jnp.nan)
    return x_BTD + rows_BTD.astype(x_BTD.dtype)
