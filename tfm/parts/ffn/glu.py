"""Gated feed-forward (arXiv:2002.05202): SwiGLU, GEGLU, ReGLU, bilinear by its activation."""

import dataclasses

from flax import linen as nn
import jax

from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.ffn.base import FFN


@dataclasses.dataclass(frozen=True)
class Glu(FFN):
  """(act(x Wg) * x Wu) Wd; as many parameters as an MLP of width f when d_ff = 2/3 f."""

  d_ff: int = 1376
  act: Act = Swish()
  bias: bool = False
  dropout: float = 0.0

  stackable = True

  def make(self, dims):
    return _Glu(self, dims)

  def flops(self, d_model):
    return 3 * 2 * d_model * self.d_ff


class _Glu(nn.Module):
  spec: Glu
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, float]:
    s, D = self.spec, self.dims.d_model
    gate_BTF = s.act(Dense('DF', (D, s.d_ff), self.dims, bias=s.bias, name='gate')(x_BTD, ctx.sizes_E))
    h_BTF = gate_BTF * Dense('DF', (D, s.d_ff), self.dims, bias=s.bias, name='up')(x_BTD, ctx.sizes_E)
    h_BTF = nn.Dropout(s.dropout, deterministic=not ctx.train)(h_BTF)
    return Dense('FD', (s.d_ff, D), self.dims, bias=s.bias, name='down')(h_BTF, ctx.sizes_E), 0.0
