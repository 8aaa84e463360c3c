"""Learned table of position embeddings."""

import dataclasses
import functools
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
  """Learned position embeddings, x + table[position + offset].

  Used by GPT-2 and BERT (arXiv:1810.04805). `tfm.apply` raises an error for sequences longer than
  the table. Positions outside the table give NaN.

  Attributes:
    max_len: largest number of positions.
    offset: number of unused entries at the start of the table (RoBERTa and OPT: 2).
    start: initial values. 'noise' draws from the init of the model; the others are the layouts of
      `Sinusoidal`. Whisper's encoder starts from sinusoids and does not train them; here they are
      trained.
  """

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
      init = functools.partial(_sinusoids, s.start, s.offset)
    table_PD = self.param('table', sharded(init, 'PD'), shape, d.run.precision.dtype('param'))
    rows_BTD = jnp.take(table_PD, pos_BT + s.offset, axis=0, mode='fill', fill_value=jnp.nan)
    return x_BTD + rows_BTD.astype(x_BTD.dtype)


def _sinusoids(
  layout: Layout, offset: int, key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype
) -> jax.Array:
  del key
  positions_P = jnp.arange(shape[0]) - offset
  return waves(positions_P[None], shape[1], layout)[0].astype(dtype)
