"""Convolutions over time, which shorten a sequence: the base of audio input layers."""

from collections.abc import Iterator
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import constrained
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.dropout import drop
from tfm.parts.embed.base import Embed, Embedded, unpadded
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Conv:
  """One convolution over time.

  Attributes:
    size: frames in a window (the kernel size).
    stride: frames from one window to the next.
    channels: width of the result. None: the width of the tower.
    pad: zeros before the first and after the last frame.
  """

  size: int = 3
  stride: int = 1
  channels: int | None = None
  pad: int = 0

  def windows(self, frames: Any) -> Any:
    """Return the number of windows in `frames` frames, an int or an array."""
    return (frames + 2 * self.pad - self.size) // self.stride + 1

  def frames(self, windows: int) -> int:
    """Return a number of frames with `windows` windows: `windows * stride`, if padding allows."""
    first = self.size - 2 * self.pad
    if 0 < first <= self.stride:
      return windows * self.stride
    return (windows - 1) * self.stride + first

  def check(self) -> Iterator[str]:
    if self.size < 1 or self.stride < 1 or (self.channels is not None and self.channels < 1):
      yield (
        f'size={self.size}, stride={self.stride}, channels={self.channels} must be positive. '
        'Expected at least 1 each.'
      )
    elif not 0 <= 2 * self.pad < self.size:
      yield f'pad={self.pad} is half a window or more. Expected 0 to {(self.size - 1) // 2}.'


@dataclasses.dataclass(frozen=True)
class Convolutions(Embed):
  """Base class of `Frames` and `Waveform`: y = act(W * x + b) for each convolution.

  Positions count from 0. `attention_mask` is int32 at the rate of the input (1: real, 0: padding at
  the end). The mask of the vectors is computed from the lengths, as in Hugging Face's models. The
  convolutions ignore the mask, so windows at the end of an example also use its padding.

  Attributes:
    convs: the convolutions, in order.
    act: activation of each convolution.
    gated: double the channels of each convolution and multiply one half by the activation of the
      other (GLU, arXiv:1612.08083).
    bias: add b.
    power: multiply the vectors by d_model to this power (Speech2Text: 0.5).
    dropout: rate after positions are added.
  """

  takes: ClassVar = ('attention_mask',)

  convs: tuple[Conv, ...] = (Conv(),)
  act: Act = Gelu()
  gated: bool = False
  bias: bool = True
  power: float = 0.0
  dropout: float = 0.0

  def windows(self, frames: int) -> int:
    """Return the number of vectors for `frames` frames of input."""
    for conv in self.convs:
      frames = conv.windows(frames)
    return frames

  def frames(self, length: int) -> int:
    """Return a number of frames that gives `length` vectors."""
    for conv in reversed(self.convs):
      length = conv.frames(length)
    return length

  @property
  def channels_in(self) -> int:
    """Width of the input."""
    raise AssertionError(f'{type(self).__name__} must give the width of its input')

  def widths(self, d_model: int) -> tuple[int, ...]:
    """Return the widths of the input and of the result of each convolution."""
    return (self.channels_in, *(conv.channels or d_model for conv in self.convs))

  def check_frames(self, name: str, frames: int, limit: int | None) -> None:
    """Check the number of frames of an input.

    Args:
      name: name of the input.
      frames: its number of frames.
      limit: number of positions of the tower, None for no limit.

    Raises:
      UserError: there is no window, or more windows than positions.
    """
    least = 1
    for conv in reversed(self.convs):
      least = max(1, (least - 1) * conv.stride + conv.size - 2 * conv.pad)
    if frames < least:
      raise errors.UserError(f'apply: {name} has {frames} frames. Expected at least {least}.')
    if limit is not None and self.windows(frames) > limit:
      raise errors.UserError(
        f'apply: {name} has {frames} frames, which are {self.windows(frames)} tokens; the position '
        f'table has {limit} entries. Expected at most {self.frames(limit)} frames.'
      )

  def info(self, inputs, shape):
    info = unpadded(*shape)
    if 'attention_mask' not in inputs:
      return info
    length_B = jnp.sum(inputs['attention_mask'] != 0, axis=1)
    for conv in self.convs:
      length_B = jnp.maximum(conv.windows(length_B), 0)
    return TokenInfo(info.positions, (info.positions < length_B[:, None]).astype(jnp.int32))

  def flops(self, d_model):
    widths, total, rate = self.widths(d_model), 0.0, 1
    for i, conv in reversed(list(enumerate(self.convs))):
      total += rate * 2 * conv.size * widths[i] * widths[i + 1] * (1 + self.gated)
      rate *= conv.stride
    return total

  def fits(self, d_model):
    if (last := self.widths(d_model)[-1]) != d_model:
      yield (
        f'convs.{len(self.convs) - 1}: channels={last}, and the tower has d_model={d_model}. '
        'Expected channels=none, which is the width of the tower.'
      )

  def check(self) -> Iterator[str]:
    if not self.convs:
      yield 'convs=() is empty. Expected at least one convolution.'
    for i, conv in enumerate(self.convs):
      yield from (f'convs.{i}: {why}' for why in conv.check())
    if self.channels_in < 1:
      yield f'there are {self.channels_in} input channels. Expected at least 1.'
    if not 0 <= self.dropout < 1:
      yield f'dropout={self.dropout} is not a rate. Expected at least 0 and less than 1.'


class ConvolutionsModule(Module):
  """Module of `Convolutions`; subclasses define `read` and may add norms and a projection."""

  spec: Convolutions
  dims: Dims

  def setup(self):
    s, widths = self.spec, self.spec.widths(self.dims.d_model)
    for i, conv in enumerate(s.convs):
      shape = (widths[i], conv.size, widths[i + 1] * (1 + s.gated))
      letters = 'DPD' if i else 'RPD'
      setattr(self, f'conv_{i}', Dense(letters, shape, self.dims, n_in=2, bias=s.bias))

  def __call__(self, inputs, outputs):
    return self.project_out(self.finish(self.start(inputs, outputs, None).x_BTD, False))

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the vectors before positions are added.

    Args:
      inputs: the inputs by name.
      outputs: outputs of other towers, not used.
      next_B: must be None, as audio has no cache.

    Returns:
      The vectors with their token info.
    """
    s, d = self.spec, self.dims
    if next_B is not None:
      raise errors.UserError(
        'apply: a cache cannot be used with audio inputs. Expected cache=None, or audio in an '
        'encoder.'
      )
    x_BTD = self.read(inputs).astype(d.run.precision.dtype('compute'))
    for i, conv in enumerate(s.convs):
      x_BTD = self.normed(i, getattr(self, f'conv_{i}')(_windows(x_BTD, conv)))
      if s.gated:
        x_BTD, gate_BTD = jnp.split(x_BTD, 2, axis=-1)
      x_BTD = x_BTD * s.act(gate_BTD) if s.gated else s.act(x_BTD)
    x_BTD = self.project(x_BTD)
    x_BTD = x_BTD * jnp.asarray(d.d_model**s.power, x_BTD.dtype) if s.power else x_BTD
    return Embedded(x_BTD, s.info(inputs, (x_BTD.shape[0], x_BTD.shape[1])))

  def read(self, inputs) -> jax.Array:
    """Return the input as frames x_BTD."""
    raise AssertionError(f'{type(self).__name__} must read its input')

  def normed(self, i: int, x_BTD: jax.Array) -> jax.Array:
    """Apply the norm of convolution `i`."""
    del i
    return x_BTD

  def project(self, x_BTD: jax.Array) -> jax.Array:
    """Project the vectors to the width of the tower."""
    return x_BTD

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply dropout after positions are added."""
    return constrained(drop(x_BTD, self.spec.dropout, train, self), 'BTD')

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Return the last hidden state unchanged."""
    return x_BTD


def _windows(x_BSD: jax.Array, conv: Conv) -> jax.Array:
  """Return the windows `[B, T, D, P]` of a convolution, for a matrix product.

  This is fast on all devices.
  """
  n = conv.windows(x_BSD.shape[1])
  x_BSD = jnp.pad(x_BSD, ((0, 0), (conv.pad, conv.pad), (0, 0)))
  ends = (n - 1) * conv.stride + 1
  return jnp.stack([x_BSD[:, p : p + ends : conv.stride] for p in range(conv.size)], axis=-1)
