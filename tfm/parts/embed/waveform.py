"""Convolutions over a raw waveform."""

import dataclasses
from typing import ClassVar, Literal

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.embed.base import check_shape
from tfm.parts.embed.convolutions import Conv, Convolutions, ConvolutionsModule
from tfm.parts.norm.base import standardized
from tfm.parts.norm.layer import LayerNorm


@dataclasses.dataclass(frozen=True)
class Waveform(Convolutions):
  """Convolutions over a raw waveform, and a projection (wav2vec 2.0, arXiv:2006.11477).

  Inputs: `input_values`, float `[B, samples]`; `attention_mask`, int32 `[B, samples]`.

  Attributes:
    convs, act, gated, bias, power, dropout: see `Convolutions`.
    norm: 'first' normalises each channel of the first convolution over time, including padding
      (group norm with a group per channel). 'each' normalises the channels of each vector after
      each convolution, before the activation.
    eps: added to the variance in the layer norm before the projection.
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
    yield from ()  # the projection accepts any width

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


class _Waveform(ConvolutionsModule):
  spec: Waveform

  def setup(self):
    super().setup()
    s, D = self.spec, self.dims.d_model
    widths = s.widths(D)
    if s.norm == 'each':
      for i in range(len(s.convs)):
        dims = self.dims.replace(d_model=widths[i + 1] * (1 + s.gated))
        setattr(self, f'norm_{i}', LayerNorm(1e-5).make(dims))
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
  """Normalisation of each channel over time, (x - mean) / sqrt(var + eps) scale + bias."""

  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    precision, D = self.dims.run.precision, x_BTD.shape[-1]
    param, reduce = precision.dtype('param'), precision.dtype('reduce')
    scale_D = self.param('scale', sharded(nn.initializers.ones, 'D'), (D,), param)
    bias_D = self.param('bias', sharded(nn.initializers.zeros, 'D'), (D,), param)
    x_BDT = jnp.swapaxes(x_BTD, 1, 2).astype(reduce)
    y_BTD = jnp.swapaxes(standardized(x_BDT, 1e-5, True), 1, 2)
    y_BTD = y_BTD * trailing(scale_D.astype(y_BTD.dtype), 3)
    y_BTD = y_BTD + trailing(bias_D.astype(y_BTD.dtype), 3)
    return y_BTD.astype(x_BTD.dtype)
