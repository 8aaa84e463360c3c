"""Strided convolution over a sequence."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.resample.base import Resample
from tfm.parts.tokeninfo import TokenInfo, positions


@dataclasses.dataclass(frozen=True)
class Stride(Resample):
  """Strided convolution, [x_1, ..., x_size] W + b for each group of tokens.

  A group belongs to the document of its first token that is not padding. Its other tokens count as
  zeros if they are padding or belong to another document. If the length is not divisible by `size`,
  the sequence is padded at the end.

  Attributes:
    size: tokens per group.
    bias: add b.
  """

  size: int = 2
  bias: bool = True

  def make(self, dims, width):
    return _Stride(self, dims, width)

  def length(self, length):
    return length / self.size

  def flops(self, width, d_model):
    return 2 * width * d_model

  def check(self):
    if self.size < 2:
      yield f'size={self.size} is too small. Expected at least 2.'


class _Stride(nn.Module):
  spec: Stride
  dims: Dims
  width: int

  @nn.compact
  def __call__(self, x_BTD: jax.Array, info: TokenInfo, grid: tuple[int, int] | None):
    n, (B, T, D) = self.spec.size, x_BTD.shape
    more = -T % n
    x_BTD = jnp.pad(x_BTD, ((0, 0), (0, more), (0, 0)))
    segment_BTn = jnp.pad(info.segment_ids, ((0, 0), (0, more))).reshape(B, -1, n)
    first_BT1 = jnp.argmax(segment_BTn > 0, axis=2, keepdims=True)
    segment_BT1 = jnp.take_along_axis(segment_BTn, first_BT1, axis=2)
    kept_BTn = (segment_BTn == segment_BT1) & (segment_BTn > 0)
    x_BTnD = jnp.where(kept_BTn[..., None], x_BTD.reshape(B, -1, n, D), 0)
    shape = (n * D, self.dims.d_model)
    project = Dense('RD', shape, self.dims, bias=self.spec.bias, name='project')
    y_BTD = project(x_BTnD.reshape(B, -1, n * D))
    segment_BT = segment_BT1[:, :, 0]
    return y_BTD, TokenInfo(positions(segment_BT), segment_BT), None
