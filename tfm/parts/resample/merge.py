"""Merging of neighbouring image patches."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.embed.base import unpadded
from tfm.parts.norm.base import Norm
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.resample.base import Resample
from tfm.parts.tokeninfo import TokenInfo, with_grid


@dataclasses.dataclass(frozen=True)
class Merge(Resample):
  """Patch merging, which turns a square of patches into one (Swin, arXiv:2103.14030).

  Computes norm([x_00, x_10, x_01, x_11]) W for each square of `size` x `size` patches, in Swin's
  order of columns.

  Attributes:
    size: patches per side of a square. The grid must be divisible by it.
    norm: applied to the concatenated patches before the projection.
  """

  size: int = 2
  norm: Norm | None = LayerNorm(1e-5)

  def make(self, dims, width):
    return _Merge(self, dims, width)

  @property
  def grid(self):
    return True

  def length(self, length):
    return length / self.size**2

  def flops(self, width, d_model):
    return 2 * width * d_model

  def check(self):
    if self.size < 2:
      yield f'size={self.size} is too small. Expected at least 2.'


class _Merge(nn.Module):
  spec: Merge
  dims: Dims
  width: int

  @nn.compact
  def __call__(self, x_BTD: jax.Array, info: TokenInfo, grid: tuple[int, int] | None):
    n = self.spec.size
    if grid is None or grid[0] * grid[1] != x_BTD.shape[1]:
      raise errors.UserError(
        f'resample=merge: {x_BTD.shape[1]} tokens are not a grid of image patches (grid={grid}). '
        'Expected embed=patches without class and register tokens.'
      )
    (h, w), (B, _, D) = grid, x_BTD.shape
    if h % n or w % n:
      raise errors.UserError(
        f'resample=merge: a grid of {h} x {w} patches is not divisible by size={n}. '
        'Expected an image with a divisible grid.'
      )
    squares = x_BTD.reshape(B, h // n, n, w // n, n, D)
    x_BTM = jnp.transpose(squares, (0, 1, 3, 4, 2, 5)).reshape(B, h // n * (w // n), n * n * D)
    if self.spec.norm is not None:
      norm = self.spec.norm.make(self.dims.replace(d_model=n * n * D), 'R')
      x_BTM = norm.copy(name='norm')(x_BTM)
    y_BTD = Dense('RD', (n * n * D, self.dims.d_model), self.dims, name='project')(x_BTM)
    new = unpadded(B, y_BTD.shape[1])
    return y_BTD, with_grid(new, (h // n, w // n)), (h // n, w // n)
