"""Convolutions over time: log-mel features or a raw waveform become a shorter sequence of vectors."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar, Literal

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import constrained, sharded, trailing
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.dropout import drop
from tfm.parts.embed.base import Embed, Embedded, check_shape, whole
from tfm.parts.norm.base import standardized
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Conv:
  """One convolution over time.

  Attributes:
    size: frames in a window (the kernel size).
    stride: frames from one window to the next.
    channels: width of the result. None: that of the tower.
    pad: zeros before the first and after the last frame.
  """

  size: int = 3
  stride: int = 1
  channels: int | None = None
  pad: int = 0

  def windows(self, frames: int) -> int:
    """Return the number of windows in `frames` frames; also of an array of numbers."""
    return (frames + 2 * self.pad - self.size) // self.stride + 1

  def frames(self, windows: int) -> int:
    """Return a number of frames with `windows` windows: `windows * stride`, where the padding allows that."""
    overlap = self.size - 2 * self.pad
    return windows * self.stride if 0 < overlap <= self.stride else (windows - 1) * self.stride + overlap

  def check(self) -> Iterator[str]:
    if self.size < 1 or self.stride < 1 or (self.channels is not None and self.channels < 1):
      yield f'size={self.size}, stride={self.stride}, channels={self.channels}. Expected at least 1 each.'
    elif not 0 <= 2 * self.pad < self.size:
      yield f'pad={self.pad} is as wide as half a window. Expected 0 to {(self.size - 1) // 2}.'


@dataclasses.dataclass(frozen=True)
class Convolutions(Embed):
  """y = act(W * x + b) for each of `convs`: the base of `Frames` and `Waveform`.

  Positions count from 0. `attention_mask` (int32 at the rate of the input, 1: real, 0: padding at the end) becomes the
  mask of the vectors by the arithmetic of lengths, as in Hugging Face's models. The convolutions do not use it: windows
  at the end of an example also read its padding.

  Attributes:
    convs: the convolutions, in order.
    act: applied after each convolution.
    gated: double the channels of each convolution; the activation of one half multiplies the other (GLU,
      arXiv:1612.08083).
    bias: add b.
    power: the vectors are multiplied by d_model to this power (Speech2Text: 0.5).
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
    """Return the number of vectors that `frames` frames of input become."""
    for conv in self.convs:
      frames = conv.windows(frames)
    return frames

  def frames(self, length: int) -> int:
    """Return a number of frames that become `length` vectors."""
    for conv in reversed(self.convs):
      length = conv.frames(length)
    return length

  @property
  def channels_in(self) -> int:
    """The width of the input."""
    raise AssertionError(f'{type(self).__name__} must give the width of its input')

  def widths(self, d_model: int) -> tuple[int, ...]:
    """Return the width of the input and of the result of each convolution."""
    return (self.channels_in, *(conv.channels or d_model for conv in self.convs))

  def check_frames(self, what: str, frames: int, limit: int | None) -> None:
    """Raise UserError for an input without a window, or with more than the tower has positions."""
    least = 1
    for conv in reversed(self.convs):
      least = max(1, (least - 1) * conv.stride + conv.size - 2 * conv.pad)
    if frames < least:
      raise errors.UserError(f'apply: {what} has {frames} frames. Expected at least {least}.')
    if limit is not None and self.windows(frames) > limit:
      raise errors.UserError(
        f'apply: {what} has {frames} frames, which become {self.windows(frames)} vectors, and the position table has '
        f'{limit} rows. Expected at most {self.frames(limit)} frames.'
      )

  def info(self, inputs, shape):
    info = whole(*shape)
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
      yield f'convs.{len(self.convs) - 1}: channels={last}, and the tower has d_model={d_model}. Expected none.'

  def check(self) -> Iterator[str]:
    if not self.convs:
      yield 'convs=() is empty. Expected at least one convolution.'
    for i, conv in enumerate(self.convs):
      yield from (f'convs.{i}: {why}' for why in conv.check())
    if self.channels_in < 1:
      yield f'{self.channels_in} input channels. Expected at least 1.'
    if not 0 <= self.dropout < 1:
      yield f'dropout={self.dropout} is not a share. Expected at least 0 and less than 1.'


@dataclasses.dataclass(frozen=True)
class Frames(Convolutions):
  """Log-mel features through convolutions (Whisper, arXiv:2212.04356; Speech2Text, arXiv:2010.05171).

  Inputs: `input_features`, float `[B, bins, frames]` (`[B, frames, bins]` with `bins_last`); `attention_mask`, int32
  `[B, frames]`. Any number of frames is accepted that the positions of the tower allow. Whisper was trained on 3000
  frames (30 seconds, with silence at the end), and Hugging Face's class refuses any other number.

  Attributes:
    bins: mel filters.
    bins_last: the features have their bins on the last axis.
  """

  needs: ClassVar = ('input_features',)

  convs: tuple[Conv, ...] = (Conv(3, 1, pad=1), Conv(3, 2, pad=1))
  bins: int = 80
  bins_last: bool = False

  @property
  def channels_in(self):
    return self.bins

  def make(self, dims):
    return _Frames(self, dims)

  def shapes(self, batch, length):
    frames = self.frames(length)
    shape = (batch, frames, self.bins) if self.bins_last else (batch, self.bins, frames)
    return {'input_features': jax.ShapeDtypeStruct(shape, jnp.float32)}

  def check_inputs(self, given, name_of, limit):
    features, name = given['input_features'], name_of('input_features')
    check_shape(name, features, 'BTD' if self.bins_last else 'BDT', {'D': self.bins})
    frames = features.shape[1 if self.bins_last else 2]
    self.check_frames(name, frames, limit)
    if (mask := given.get('attention_mask')) is not None:
      check_shape(name_of('attention_mask'), mask, 'BT', {'B': features.shape[0], 'T': frames})


@dataclasses.dataclass(frozen=True)
class Waveform(Convolutions):
  """A raw waveform through convolutions, and a projection to the width of the tower (wav2vec 2.0, arXiv:2006.11477).

  Inputs: `input_values`, float `[B, samples]`; `attention_mask`, int32 `[B, samples]`.

  Attributes:
    norm: 'first' normalises each channel of the first convolution over time (group norm with a group per channel;
      padding counts), 'each' all channels of a vector after each convolution, before the activation.
    eps: that of the layer norm before the projection.
  """

  needs: ClassVar = ('input_values',)

  convs: tuple[Conv, ...] = (Conv(10, 5, 512), *(Conv(3, 2, 512),) * 4, *(Conv(2, 2, 512),) * 2)
  bias: bool = False
  norm: Literal['first', 'each'] = 'first'
  eps: float = 1e-5

  @property
  def channels_in(self):
    return 1

  def make(self, dims):
    return _Waveform(self, dims)

  def fits(self, d_model):
    yield from ()  # the projection takes any width

  def flops(self, d_model):
    return super().flops(d_model) + 2 * self.widths(d_model)[-1] * d_model

  def shapes(self, batch, length):
    return {'input_values': jax.ShapeDtypeStruct((batch, self.frames(length)), jnp.float32)}

  def check_inputs(self, given, name_of, limit):
    values, name = given['input_values'], name_of('input_values')
    check_shape(name, values, 'BT')
    self.check_frames(name, values.shape[1], limit)
    if (mask := given.get('attention_mask')) is not None:
      check_shape(name_of('attention_mask'), mask, 'BT', dict(zip('BT', values.shape, strict=True)))


class _Convolutions(Module):
  spec: Convolutions
  dims: Dims

  def setup(self):
    s, widths = self.spec, self.spec.widths(self.dims.d_model)
    for i, conv in enumerate(s.convs):
      shape = (widths[i], conv.size, widths[i + 1] * (1 + s.gated))
      setattr(self, f'conv_{i}', Dense('DPD' if i else 'RPD', shape, self.dims, n_in=2, bias=s.bias))

  def __call__(self, inputs, outputs):
    return self.leave(self.finish(self.start(inputs, outputs, None).x_BTD, False))

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the vectors before positions are added."""
    s, d = self.spec, self.dims
    if next_B is not None:
      raise errors.UserError('embed: a cache holds tokens, and the model reads audio. Expected audio in an encoder.')
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
    """Bring the vectors to the width of the tower."""
    return x_BTD

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply dropout to the sum of vectors and positions."""
    return constrained(drop(x_BTD, self.spec.dropout, train, self), 'BTD')

  def leave(self, x_BTD: jax.Array) -> jax.Array:
    """Return the last hidden state as it is."""
    return x_BTD


class _Frames(_Convolutions):
  spec: Frames

  def read(self, inputs):
    x = inputs['input_features']
    return x if self.spec.bins_last else jnp.swapaxes(x, 1, 2)


class _Waveform(_Convolutions):
  spec: Waveform

  def setup(self):
    super().setup()
    s, D = self.spec, self.dims.d_model
    widths = s.widths(D)
    if s.norm == 'each':
      for i in range(len(s.convs)):
        own = self.dims.replace(d_model=widths[i + 1] * (1 + s.gated))
        setattr(self, f'norm_{i}', LayerNorm(1e-5).make(own))
    else:
      self.norm_0 = _OverTime(self.dims)
    self.project_norm = LayerNorm(s.eps).make(self.dims.replace(d_model=widths[-1]))
    self.projection = Dense('RD', (widths[-1], D), self.dims, bias=True)

  def read(self, inputs):
    return inputs['input_values'][..., None]

  def normed(self, i, x_BTD):
    return getattr(self, f'norm_{i}')(x_BTD) if self.spec.norm == 'each' or i == 0 else x_BTD

  def project(self, x_BTD):
    return self.projection(self.project_norm(x_BTD))


class _OverTime(Module):
  """(x - mean) / sqrt(var + eps) * scale + bias, with the statistics of each channel over time."""

  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    precision, D = self.dims.run.precision, x_BTD.shape[-1]
    scale_D = self.param('scale', sharded(nn.initializers.ones, 'D'), (D,), precision.dtype('param'))
    bias_D = self.param('bias', sharded(nn.initializers.zeros, 'D'), (D,), precision.dtype('param'))
    x_BDT = jnp.swapaxes(x_BTD, 1, 2).astype(precision.dtype('reduce'))
    y_BTD = jnp.swapaxes(standardized(x_BDT, 1e-5, True), 1, 2)
    y_BTD = y_BTD * trailing(scale_D.astype(y_BTD.dtype), 3) + trailing(bias_D.astype(y_BTD.dtype), 3)
    return y_BTD.astype(x_BTD.dtype)


def _windows(x_BSD: jax.Array, conv: Conv) -> jax.Array:
  """Return the windows `[B, T, D, P]` of a convolution; as a matrix product with them it is fast on every device."""
  n = conv.windows(x_BSD.shape[1])
  x_BSD = jnp.pad(x_BSD, ((0, 0), (conv.pad, conv.pad), (0, 0)))
  ends = (n - 1) * conv.stride + 1
  return jnp.stack([x_BSD[:, p : p + ends : conv.stride] for p in range(conv.size)], axis=-1)
