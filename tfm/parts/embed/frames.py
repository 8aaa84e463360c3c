"""Convolutions over log-mel features."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tfm.parts.embed.base import check_shape
from tfm.parts.embed.convolutions import Conv, Convolutions, ConvolutionsModule


@dataclasses.dataclass(frozen=True)
class Frames(Convolutions):
  """Convolutions over log-mel features (Whisper, arXiv:2212.04356; Speech2Text, arXiv:2010.05171).

  Inputs: `input_features`, float `[B, bins, frames]`, or `[B, frames, bins]` with `bins_last`;
  `attention_mask`, int32 `[B, frames]`. The number of frames is limited by the positions of the
  tower only. Whisper was trained on 3000 frames (30 seconds, padded with silence), and Hugging
  Face's class accepts no other number.

  Attributes:
    convs, act, gated, bias, power, dropout: see `Convolutions`.
    bins: number of mel filters.
    bins_last: the bins are the last axis of the features.
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


class _Frames(ConvolutionsModule):
  spec: Frames

  def read(self, inputs):
    x = inputs['input_features']
    return x if self.spec.bins_last else jnp.swapaxes(x, 1, 2)
