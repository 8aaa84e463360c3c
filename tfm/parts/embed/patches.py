"""Patches of images, spectrograms and video as tokens."""

from collections.abc import Iterator
import dataclasses
import math
from typing import ClassVar, Literal

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.core.axes import constrained, sharded
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.dropout import drop
from tfm.parts.embed.base import Embed, Embedded, check_shape, unpadded
from tfm.parts.embed.resize import Resize, resize_positions, sincos
from tfm.parts.norm.base import Norm
from tfm.parts.tokeninfo import TokenInfo, with_grid


@dataclasses.dataclass(frozen=True)
class Patches(Embed):
  """Linear projection of image patches (ViT, arXiv:2010.11929).

  The sequence is [class; distillation; patches W + b] + positions. Registers are inserted after the
  class token, then norm and dropout are applied. The projection is a convolution with its kernel
  size as stride; its kernel is `[C, size, size, D]`. A spectrogram is an image of one channel.

  Inputs: `pixel_values`, float `[B, C, H, W]`, or `[B, F, C, H, W]` for video; with `mask_token`,
  `bool_masked_pos` bool `[B, patches]`, true for patches that the mask token replaces.

  Attributes:
    size: side of a patch, its (height, width), or (frames, height, width) for video.
    image: size of the images of the position table: a side, (height, width), or (frames, height,
      width).
    channels: channels of an image.
    bias: add b.
    class_token, distillation_token: learned vectors before the patches, in this order (DeiT has
      both).
    registers: number of learned vectors after the class token, without positions
      (arXiv:2309.16588).
    mask_token: use a learned vector for masked patches.
    positions: 'learned' is a table of the class and distillation tokens and of the patches of
      `image`. 'sincos' is fixed waves of row and column, zero for the other tokens. 'none' leaves
      positions to `absolute` and `relative`.
    resize: interpolation of the learned table for images of other sizes. None: they raise an error.
    norm, dropout: applied to the whole sequence in the end (CLIP's norm before the first layer).
  """

  needs: ClassVar = ('pixel_values',)
  takes: ClassVar = ('bool_masked_pos',)
  ends_with_norm: ClassVar = False

  size: int | tuple[int, ...] = 16
  image: int | tuple[int, ...] = 224
  channels: int = 3
  bias: bool = True
  class_token: bool = True
  distillation_token: bool = False
  registers: int = 0
  mask_token: bool = False
  positions: Literal['learned', 'sincos', 'none'] = 'learned'
  resize: Resize | None = 'bicubic'
  norm: Norm | None = None
  dropout: float = 0.0

  def make(self, dims):
    return _Patches(self, dims)

  @property
  def provides(self):  # type: ignore[override]
    return frozenset({'grid', 'time'} if self.video else {'grid'})

  @property
  def video(self) -> bool:
    """Whether the input is video."""
    return isinstance(self.size, tuple) and len(self.size) == 3

  @property
  def sides(self) -> tuple[int, ...]:
    """Height and width of a patch, for video after its number of frames."""
    return _sides(self.size)

  @property
  def grid(self) -> tuple[int, ...]:
    """Number of patches along each axis of `image`."""
    return tuple(n // s for n, s in zip(_sides(self.image), self.sides, strict=True))

  @property
  def numbered(self) -> int:
    """Number of tokens before the patches that have entries in the position table."""
    return self.class_token + self.distillation_token

  @property
  def lead(self) -> int:
    """Number of tokens before the patches."""
    return self.numbered + self.registers

  def tokens(self, length):
    return self.lead + math.prod(self.grid)

  def shapes(self, batch, length):
    *frames, height, width = _sides(self.image)
    shape = (batch, *frames, self.channels, height, width)
    return {'pixel_values': jax.ShapeDtypeStruct(shape, jnp.float32)}

  def flops(self, d_model):
    return 2.0 * self.channels * math.prod(self.sides) * d_model

  def check(self) -> Iterator[str]:
    image = _sides(self.image)
    if len(image) != len(self.sides) or len(self.sides) not in (2, 3):
      yield (
        f'size={self.size} and image={self.image} have different numbers of axes. '
        'Expected 2 axes each, or 3 for video.'
      )
      return
    if min(*self.sides, *image, self.channels) < 1:
      yield (
        f'size={self.size}, image={self.image}, channels={self.channels} must be positive. '
        'Expected at least 1 each.'
      )
    elif any(n % s for n, s in zip(image, self.sides, strict=True)):
      yield f'image={self.image} is not divisible by size={self.size}. Expected multiples.'
    if self.registers < 0 or (self.registers and not self.class_token):
      yield (
        f'registers={self.registers} needs a class token, or is negative. '
        'Expected registers=0, or class_token=true.'
      )
    if self.video and self.positions == 'sincos':
      yield (
        'positions=sincos is not defined for video. '
        'Expected learned, or none with absolute=sinusoidal.'
      )

  def fits(self, d_model):
    if self.positions == 'sincos' and d_model % 4:
      yield f'positions=sincos cannot have d_model={d_model}. Expected a multiple of 4.'

  def check_inputs(self, given, name_of, limit):
    pixels, name = given['pixel_values'], name_of('pixel_values')
    check_shape(name, pixels, 'BFCHW' if self.video else 'BCHW', {'C': self.channels})
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
      raise errors.UserError(
        f'apply: {name} has dtype {pixels.dtype}. Expected floats, scaled by the processor.'
      )
    self._check_grid(name, self._shape_of(pixels), limit)
    if (masked := given.get('bool_masked_pos')) is not None:
      masked_name = name_of('bool_masked_pos')
      if not self.mask_token:
        raise errors.UserError(
          f'apply: {masked_name} is given, but the model has no mask token. '
          'Expected embed.mask_token=true.'
        )
      sizes = {'B': pixels.shape[0], 'P': math.prod(self._grid_of(pixels))}
      check_shape(masked_name, masked, 'BP', sizes)
    if not isinstance(pixels, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(pixels))):
      raise errors.UserError(f'apply: {name} has NaN or infinite values. Expected finite pixels.')

  def _check_grid(self, name: str, shape: tuple[int, ...], limit: int | None) -> None:
    """Raise UserError for images without whole patches, or without a position for each patch."""
    size = ' x '.join(map(str, shape))
    if not all(n and n % s == 0 for n, s in zip(shape, self.sides, strict=True)):
      patch = ' x '.join(map(str, self.sides))
      raise errors.UserError(
        f'apply: {name} of {size} is not divisible into patches of {patch}. Expected multiples.'
      )
    grid = tuple(n // s for n, s in zip(shape, self.sides, strict=True))
    resizable = self.resize is not None and grid[:-2] == self.grid[:-2]
    if self.positions == 'learned' and grid != self.grid and not resizable:
      expected = ' x '.join(map(str, _sides(self.image)))
      more = '' if self.video else ', or embed.resize=bicubic'
      raise errors.UserError(
        f'apply: {name} is {size}, and the position table is for {expected}. '
        f'Expected {expected}{more}.'
      )
    if limit is not None and limit < (T := self.lead + math.prod(grid)):
      raise errors.UserError(
        f'apply: {name} of {size} has {T} tokens, the position table has {limit} entries. '
        f'Expected at most {limit} tokens.'
      )

  def info(self, inputs, shape):
    del inputs
    if shape[1] != self.tokens(0):
      return unpadded(*shape)
    return self.placed(shape[0], self.grid)

  def placed(self, batch: int, grid: tuple[int, ...]) -> TokenInfo:
    """Return the token info of images with this grid of patches.

    It has positions from 0, and the row and column (for video also the time) of each patch.
    """
    *time, rows, columns = grid
    frames = math.prod(time)
    info = unpadded(batch, self.lead + frames * rows * columns)
    info = with_grid(info, (rows, columns), self.lead, frames)
    if not self.video:
      return info
    time_T = jnp.repeat(jnp.arange(frames, dtype=jnp.int32), rows * columns)
    time_T = jnp.concatenate([jnp.full((self.lead,), -1, jnp.int32), time_T])
    return info.with_extras(time=jnp.broadcast_to(time_T[None], info.positions.shape))

  def _shape_of(self, pixels: jax.Array) -> tuple[int, ...]:
    """Return height and width of an input, for video after its number of frames."""
    return (*pixels.shape[1:2], *pixels.shape[3:]) if self.video else pixels.shape[2:]

  def _grid_of(self, pixels: jax.Array) -> tuple[int, ...]:
    """Return the number of patches along each axis of an input."""
    return tuple(n // s for n, s in zip(self._shape_of(pixels), self.sides, strict=True))


def _sides(size: int | tuple[int, ...]) -> tuple[int, ...]:
  return (size, size) if isinstance(size, int) else size


class _Patches(Module):
  spec: Patches
  dims: Dims

  def setup(self):
    s, d = self.spec, self.dims
    D = d.d_model
    kernel = (s.channels, *s.sides, D)
    letters = 'C' + 'P' * len(s.sides) + 'D'
    self.patches = Dense(letters, kernel, d, n_in=len(kernel) - 1, bias=s.bias)
    self.class_D = self._vector('class') if s.class_token else None
    self.distillation_D = self._vector('distillation') if s.distillation_token else None
    self.mask_D = self._vector('mask') if s.mask_token else None
    self.registers_PD = self._table('registers', s.registers) if s.registers else None
    self.positions_PD = None
    if s.positions == 'learned':
      self.positions_PD = self._table('positions', s.numbered + math.prod(s.grid))
    self.norm = s.norm.make(d) if s.norm is not None else None

  def _vector(self, name: str) -> jax.Array:
    D = self.dims.d_model
    init = self.dims.init.weight(name, 1, D, self.dims)
    return self.param(name, sharded(init, 'D'), (D,), self.dims.run.precision.dtype('param'))

  def _table(self, name: str, size: int) -> jax.Array:
    shape = (size, self.dims.d_model)
    init = self.dims.init.weight(name, *shape, self.dims)
    return self.param(name, sharded(init, 'PD'), shape, self.dims.run.precision.dtype('param'))

  def __call__(self, inputs, outputs):
    return self.finish(self.start(inputs, outputs, None).x_BTD, False)

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the special tokens and the projected patches, with their positions."""
    del outputs
    s, dtype = self.spec, self.dims.run.precision.dtype('compute')
    pixels = inputs['pixel_values'].astype(dtype)
    B, grid = pixels.shape[0], s._grid_of(pixels)
    x_BTD = self.patches(unfold(jnp.moveaxis(pixels, 2, 1) if s.video else pixels, s.sides))
    if (masked_BP := inputs.get('bool_masked_pos')) is not None:
      assert self.mask_D is not None
      x_BTD = jnp.where(masked_BP[..., None] != 0, self.mask_D.astype(dtype)[None, None], x_BTD)
    tokens = [t for t in (self.class_D, self.distillation_D) if t is not None]
    lead_TD = jnp.stack(tokens).astype(dtype) if tokens else jnp.zeros((0, x_BTD.shape[-1]), dtype)
    positions_PD = self.positions(grid)
    if positions_PD is not None:
      positions_PD = positions_PD.astype(dtype)
      lead_TD = lead_TD + positions_PD[: len(lead_TD)]
      x_BTD = x_BTD + positions_PD[None, len(lead_TD) :]
    if self.registers_PD is not None:
      lead_TD = jnp.concatenate([lead_TD[:1], self.registers_PD.astype(dtype), lead_TD[1:]])
    if len(lead_TD):
      x_BTD = jnp.concatenate([jnp.broadcast_to(lead_TD[None], (B, *lead_TD.shape)), x_BTD], 1)
    info = s.placed(B, grid)
    if next_B is not None:
      info = info.at(info.positions + next_B[:, None])
    return Embedded(x_BTD, info, grid=None if s.video else (grid[0], grid[1]))

  @nn.nowrap
  def positions(self, grid: tuple[int, ...]) -> jax.Array | None:
    """Return the positions of the class and distillation tokens and of the patches."""
    s, n = self.spec, self.spec.numbered
    if s.positions == 'none':
      return None
    if s.positions == 'sincos':
      return jnp.pad(jnp.asarray(sincos(grid, self.dims.d_model)), ((n, 0), (0, 0)))
    assert self.positions_PD is not None
    if grid == s.grid:
      return self.positions_PD
    assert s.resize is not None
    patches_PD = self.positions_PD[n:]
    if s.video:
      resize = lambda frame_PD: resize_positions(frame_PD, s.grid[1:], grid[1:], s.resize)
      patches_PD = jax.vmap(resize)(patches_PD.reshape(grid[0], -1, patches_PD.shape[-1]))
      patches_PD = patches_PD.reshape(-1, patches_PD.shape[-1])
    else:
      patches_PD = resize_positions(patches_PD, s.grid, grid, s.resize)
    return jnp.concatenate([self.positions_PD[:n], patches_PD])

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout."""
    x_BTD = x_BTD if self.norm is None else self.norm(x_BTD)
    return constrained(drop(x_BTD, self.spec.dropout, train, self), 'BTD')

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Return the last hidden state unchanged."""
    return x_BTD


def unfold(pixels: jax.Array, sides: tuple[int, ...]) -> jax.Array:
  """Return the patches `[B, T, C, *sides]` of images `[B, C, *shape]`, row by row.

  A matrix product with them is a convolution with its kernel size as stride. It is fast on CPUs
  too.
  """
  B, C, *shape = pixels.shape
  axes = [n for size, s in zip(shape, sides, strict=True) for n in (size // s, s)]
  counts, within = range(2, 2 + len(axes), 2), range(3, 3 + len(axes), 2)
  patches = jnp.transpose(pixels.reshape(B, C, *axes), (0, *counts, 1, *within))
  return patches.reshape(B, -1, C, *sides)
