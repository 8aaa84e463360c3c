"""Reconstruction of an image from its patches."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.head.base import Head, HeadContext
from tfm.parts.modulation import ZERO


@dataclasses.dataclass(frozen=True)
class Unpatchify(Head):
  """Pixels of each patch, h W + b, as an image (MAE, arXiv:2111.06377; DiT, arXiv:2212.09748).

  Output: `predictions` `[B, channels, H, W]`. Tokens before the patches are ignored. The projection
  of a patch holds its pixels row by row, with the channels of a pixel next to each other.

  Attributes:
    size: side p of a patch in pixels. The image is p times the grid of patches.
    channels: channels of the image. DiT, which also predicts variances, has twice the
      channels of its input.
    bias: add b.
    zero_init: start at 0, as DiT does.
    name: name of the output. Default: `predictions`.
  """

  size: int = 2
  channels: int = 3
  bias: bool = True
  zero_init: bool = False

  def make(self, dims):
    return _Unpatchify(self, dims)

  def returns(self, alone):
    del alone
    return (self.name or 'predictions',)

  def flops(self, dims, length):
    return length * 2.0 * dims.d_model * self.size**2 * self.channels

  def check(self) -> Iterator[str]:
    if self.size < 1 or self.channels < 1:
      yield f'size={self.size}, channels={self.channels}: not positive. Expected at least 1 each.'

  def fits(self, tower):
    if 'grid' not in tower.embed.provides:
      kind = tower.embed.table().name_of(tower.embed)
      yield (
        f'unpatchify needs a grid of image patches, and embed={kind} has none. '
        'Expected embed=patches.'
      )


class _Unpatchify(nn.Module):
  spec: Unpatchify
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, context: HeadContext) -> dict[str, jax.Array]:
    s, (B, T, D), grid = self.spec, x_BTD.shape, context.grid
    if grid is None or grid[0] * grid[1] > T:
      raise errors.UserError(
        f'head=unpatchify: {T} tokens are not a grid of image patches (grid={grid}). '
        'Expected embed=patches of images.'
      )
    dims = self.dims.replace(init=ZERO) if s.zero_init else self.dims
    (h, w), p, C = grid, s.size, s.channels
    y_BTR = Dense('DR', (D, p * p * C), dims, bias=s.bias, name='out')(x_BTD[:, T - h * w :])
    squares = y_BTR.reshape(B, h, w, p, p, C)
    image_BCHW = jnp.transpose(squares, (0, 5, 1, 3, 2, 4)).reshape(B, C, h * p, w * p)
    return {s.name or 'predictions': image_BCHW}
