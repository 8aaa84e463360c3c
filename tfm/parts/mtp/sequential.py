"""Multi-token prediction with sequential modules."""

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
  """Sequential modules that each use the previous one (DeepSeek-V3, arXiv:2412.19437).

  Depth k computes h^k_t = norm_k(layer_k(W_k [norm(E(x_{t+k})); norm(h^{k-1}_t)])). h^0 is the last
  hidden state after the final norm. It shares embedding and head with the model. The embedding at
  position 0 is left out, as in the released weights.

  Attributes:
    norm: norm of embeddings and hidden states.
    hidden_first: concatenate [h; E] as printed in the paper. The released weights and the default
      use [E; h].
  """

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
    s, D = self.spec, self.dims.d_model
    R = e_BTD.shape[-1]  # the token table can be narrower than the model
    h_BTD = s.norm.make(self.dims).copy(name='hidden_norm')(h_BTD)
    e_BTD = s.norm.make(self.dims.foot, 'D' if R == D else 'R').copy(name='embed_norm')(e_BTD)
    both = jnp.concatenate([h_BTD, e_BTD] if s.hidden_first else [e_BTD, h_BTD], -1)
    return Dense('DD', (D + R, D), self.dims, name='project')(both)
