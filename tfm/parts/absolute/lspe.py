"""A feed-forward over waves whose frequencies are learned (LSPE, Wang et al., AACL 2022)."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.absolute.base import Absolute
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.context import Dims
from tfm.parts.dense import Dense


@dataclasses.dataclass(frozen=True)
class LSPE(Absolute):
  """x + s + W2 act(W1 s + b1) + b2, s = sin(w pos + b), w and b learned from where `Sinusoidal` has
  them.

  *Differs*: a reconstruction from the paper's abstract, whose text was not at hand.
  """

  d_ff: int = 256
  act: Act = GeluTanh()
  base: float = 10_000.0

  def make(self, dims):
    return _LSPE(self, dims)


class _LSPE(Module):
  spec: LSPE
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, pos_BT: jax.Array) -> jax.Array:
    s, d = self.spec, self.dims
    D, dtype = d.d_model, d.run.precision.dtype('param')
    w_D = self.param(
      'frequency', sharded(lambda *_: _frequencies(D, s.base).astype(dtype), 'D'), (D,), dtype
    )
    b_D = self.param('phase', sharded(lambda *_: _phases(D).astype(dtype), 'D'), (D,), dtype)
    pos_BT1 = pos_BT[..., None].astype(jnp.float32)
    wave_BTD = jnp.sin(
      pos_BT1 * w_D.astype(jnp.float32)[None, None] + b_D.astype(jnp.float32)[None, None]
    )
    wave_BTD = wave_BTD.astype(x_BTD.dtype)
    h_BTF = s.act(Dense('DF', (D, s.d_ff), d, bias=True, name='up')(wave_BTD))
    return x_BTD + wave_BTD + Dense('FD', (s.d_ff, D), d, bias=True, name='down')(h_BTF)


def _frequencies(D: int, base: float) -> jax.Array:
  return jnp.asarray(base ** (-(np.arange(D) // 2) * 2 / D), jnp.float32)


def _phases(D: int) -> jax.Array:
  """0 for a sine, pi / 2 for a cosine."""
  return jnp.asarray(np.arange(D) % 2 * np.pi / 2, jnp.float32)
