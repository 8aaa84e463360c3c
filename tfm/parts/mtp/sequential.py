"""Modules one after another, each told the token that the one before it predicted (DeepSeek-V3,
arXiv:2412.19437).
"""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.mtp.base import MTP
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm


@dataclasses.dataclass(frozen=True)
class SequentialMTP(MTP):
  """h^k_t = norm_k(layer_k(W_k [norm(E(x_{t+k})); norm(h^{k-1}_t)])), h^0 the model's last hidden
  state.

  Embedding and head are the model's. `hidden_first` joins [h; E] as the paper prints it; the
  released weights, and the default, have [E; h], with h^0 behind the model's last norm (as
  transformers' `MtpLayer` and vLLM's `deepseek_mtp.py` read them, which also leaves out the
  embedding at position 0)."""

  norm: Norm = RMSNorm()
  hidden_first: bool = False

  @property
  def chained(self):
    return True

  def flops(self, d_model):
    return 2 * 2 * d_model**2

  def make(self, dims):
    return _Join(self, dims)


class _Join(nn.Module):
  spec: SequentialMTP
  dims: Dims

  @nn.compact
  def __call__(self, h_BTD: jax.Array, e_BTD: jax.Array) -> jax.Array:
    s, D, R = (
      self.spec,
      self.dims.d_model,
      e_BTD.shape[-1],
    )  # a token table may be narrower than the model
    h_BTD = s.norm.make(self.dims).copy(name='hidden_norm')(h_BTD)
    e_BTD = s.norm.make(self.dims.foot, 'D' if R == D else 'R').copy(name='embed_norm')(e_BTD)
    both = jnp.concatenate([h_BTD, e_BTD] if s.hidden_first else [e_BTD, h_BTD], -1)
    return Dense('DD', (D + R, D), self.dims, name='project')(both)
