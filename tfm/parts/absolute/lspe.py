"""Position encoding by a feed-forward network over learned sinusoids."""

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
  """Learned sinusoids followed by a feed-forward network (LSPE, Wang et al., AACL 2022).

  Adds s + W2 act(W1 s + b1) + b2 with s = sin(w position + b). The learned w and b start at the
  frequencies and phases of `Sinusoidal`.

  Note:
    This is a reconstruction from the abstract. The full paper was not available.

  Attributes:
    d_ff: width of the feed-forward network.
    act: its activation.
    base: largest wavelength at the start, divided by 2 pi.
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
    start_frequency = sharded(lambda *_: _frequencies(D, s.base).astype(dtype), 'D')
    start_phase = sharded(lambda *_: _phases(D).astype(dtype), 'D')
    w_D = self.param('frequency', start_frequency, (D,), dtype).astype(jnp.float32)
    b_D = self.param('phase', start_phase, (D,), dtype).astype(jnp.float32)
    pos_BT1 = pos_BT[..., None].astype(jnp.float32)
    wave_BTD = jnp.sin(pos_BT1 * w_D[None, None] + b_D[None, None]).astype(x_BTD.dtype)
    h_BTF = s.act(Dense('DF', (D, s.d_ff), d, bias=True, name='up')(wave_BTD))
    return x_BTD + wave_BTD + Dense('FD', (s.d_ff, D), d, bias=True, name='down')(h_BTF)


def _frequencies(D: int, base: float) -> jax.Array:
  return jnp.asarray(base ** (-(np.arange(D) // 2) * 2 / D), jnp.float32)


def _phases(D: int) -> jax.Array:
  """Return the initial phases: 0 for a sine, pi / 2 for a cosine."""
  return jnp.asarray(np.arange(D) % 2 * np.pi / 2, jnp.float32)
