"""The Fourier transform as a mixer."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core.precision import Precision
from tfm.parts.context import Ctx
from tfm.parts.encoder_only import check_uncached
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.base import Cache, Mixer


@dataclasses.dataclass(frozen=True)
class Fourier(Mixer):
  """The real part of a 2D Fourier transform over tokens and channels (FNet, arXiv:2105.03824).

  y = Re(F_n X F_D), where F_n = exp(-2 pi i j k / n) transforms the n tokens of a document and F_D
  their D channels. It has no parameters and no cache. The transforms are products with matrices of
  cos and sin: 4 D^2 + 4 n D FLOPs per token, which suits accelerators at encoder lengths.

  Note:
    The released code treats padding as tokens. Here n is the length of the document, so the result
    does not depend on the batch. Without padding both agree.
  """

  mask = Mask()

  def make(self, dims):
    return _Fourier(dims.run.precision)

  def state(self, d_model):
    return {}

  def flops(self, d_model, pairs):
    return 4 * d_model**2 + 4 * pairs * d_model

  def pairs(self, length):
    return length

  @property
  def causal(self):
    return False


class _Fourier(nn.Module):
  precision: Precision

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    check_uncached(cache is not None, 'fourier', 'mixes all tokens of a document')
    pos_BT, segment_BT = ctx.info.positions, ctx.info.segment_ids
    same_BTS = (segment_BT[:, :, None] == segment_BT[:, None, :]) & (segment_BT > 0)[:, :, None]
    n_BT1 = jnp.maximum(jnp.sum(same_BTS, -1, keepdims=True), 1)
    # Reduce the angle modulo one turn in integers, to keep precision.
    turn_BTS = pos_BT[:, :, None] * pos_BT[:, None, :] % n_BT1
    angle_BTS = turn_BTS.astype(jnp.float32) * (2 * np.pi / n_BT1)
    f_BTD = x_BTD.astype(self.precision.dtype('reduce'))
    cos_DD, sin_DD = (jnp.asarray(w, f_BTD.dtype) for w in _waves(x_BTD.shape[-1]))
    over_tokens = lambda w_BTS, f_BSD: jnp.einsum(
      'BTS,BSD->BTD', jnp.where(same_BTS, w_BTS, 0), f_BSD
    )
    y_BTD = over_tokens(jnp.cos(angle_BTS), f_BTD @ cos_DD) - over_tokens(
      jnp.sin(angle_BTS), f_BTD @ sin_DD
    )
    return y_BTD.astype(x_BTD.dtype), None


def _waves(D: int) -> tuple[np.ndarray, np.ndarray]:
  angle_DD = np.outer(np.arange(D), np.arange(D)) % D * (2 * np.pi / D)
  return np.cos(angle_DD), np.sin(angle_DD)
