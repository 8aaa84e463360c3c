"""Layer normalisation conditioned on a vector per example."""

import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax

from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Dims
from tfm.parts.modulation import Modulation
from tfm.parts.norm.base import Norm, standardized


@dataclasses.dataclass(frozen=True)
class AdaptiveNorm(Norm):
  """Layer normalisation with scale and shift from a condition (adaLN, arXiv:2212.09748).

  Computes (1 + scale) (x - mean) / sqrt(var + eps) + shift. Scale and shift are act(c) W + b of the
  condition c; both start at 0. The input layer must return a condition (`embed=conditioned`).

  Attributes:
    eps: added to the variance.
    act: activation of the condition.
  """

  conditioned: ClassVar[bool] = True

  eps: float = 1e-6
  act: Act = Swish()

  def make(self, dims, letters='D'):
    assert letters == 'D', 'an adaptive norm normalises hidden states, not heads'
    return _AdaptiveNorm(self, dims)


class _AdaptiveNorm(Module):
  spec: AdaptiveNorm
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, cond_BD: jax.Array) -> jax.Array:
    reduce = self.dims.run.precision.dtype('reduce')
    y_BTD = standardized(x_BTD.astype(reduce), self.spec.eps, True)
    scale_B1D = Modulation(self.spec.act, self.dims, name='scale')(cond_BD)
    shift_B1D = Modulation(self.spec.act, self.dims, name='shift')(cond_BD)
    return (y_BTD * (1 + scale_B1D.astype(reduce)) + shift_B1D.astype(reduce)).astype(x_BTD.dtype)
