"""Two projections with an activation between them."""

import dataclasses

from flax import linen as nn
import jax

from tfm.parts.act.base import Act
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.ffn.base import FFN


@dataclasses.dataclass(frozen=True)
class Mlp(FFN):
  """Two-layer perceptron, act(x Wu + bu) Wd + bd (arXiv:1706.03762).

  Attributes:
    d_ff: width of the hidden layer.
    act: activation.
    bias: add bu and bd.
    dropout: rate before Wd (T5).
  """

  d_ff: int = 2048
  act: Act = GeluTanh()
  bias: bool = True
  dropout: float = 0.0

  @property
  def stackable(self):
    return True

  def make(self, dims):
    return _Mlp(self, dims)

  def flops(self, d_model):
    return 2 * 2 * d_model * self.d_ff


class _Mlp(nn.Module):
  spec: Mlp
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, float]:
    s, D = self.spec, self.dims.d_model
    h_BTF = s.act(Dense('DF', (D, s.d_ff), self.dims, bias=s.bias, name='up')(x_BTD, ctx.sizes_E))
    h_BTF = nn.Dropout(s.dropout, deterministic=not ctx.train)(h_BTF)
    return Dense('FD', (s.d_ff, D), self.dims, bias=s.bias, name='down')(h_BTF, ctx.sizes_E), 0.0
