"""Feed-forward network with block-diagonal projections (SqueezeBERT, ConvBERT)."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.context import Ctx, Dims
from tfm.parts.ffn.base import FFN
from tfm.parts.grouped_dense import grouped, misfits


@dataclasses.dataclass(frozen=True)
class GroupedMlp(FFN):
  """MLP with block-diagonal projections, act(x Wu + bu) Wd + bd (arXiv:2006.11316, 2008.02496).

  Attributes:
    d_ff: width of the hidden layer.
    act: activation of the hidden layer.
    up_groups: number of blocks of Wu, a divisor of `d_ff` and of the width of the model.
    down_groups: number of blocks of Wd, likewise.
  """

  d_ff: int = 2048
  act: Act = Gelu()
  up_groups: int = 4
  down_groups: int = 4

  def make(self, dims):
    return _GroupedMlp(self, dims)

  def fits(self, d_model):
    for name in ('up_groups', 'down_groups'):
      if sentence := misfits(name, getattr(self, name), d_model, self.d_ff):
        yield sentence

  def flops(self, d_model):
    return 2 * d_model * self.d_ff // self.up_groups + 2 * d_model * self.d_ff // self.down_groups

  def check(self) -> Iterator[str]:
    if self.d_ff < 1:
      yield f'd_ff={self.d_ff} is not a width. Expected at least 1.'


class _GroupedMlp(nn.Module):
  spec: GroupedMlp
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, float]:
    s, D = self.spec, self.dims.d_model
    h_BTF = s.act(grouped('DF', (D, s.d_ff), self.dims, 'up', s.up_groups)(x_BTD))
    return grouped('FD', (s.d_ff, D), self.dims, 'down', s.down_groups)(h_BTF), 0.0
