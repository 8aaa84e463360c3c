"""Gated feed-forward networks: SwiGLU, GEGLU, ReGLU or bilinear, depending on the activation."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax

from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.ffn.base import FFN


@dataclasses.dataclass(frozen=True)
class Glu(FFN):
  """Gated feed-forward network, (act(x Wg) * x Wu) Wd (arXiv:2002.05202).

  With `d_ff` = 2/3 f it has as many parameters as an MLP of width f.

  Attributes:
    d_ff: width of the hidden layer.
    act: activation of the gate. Swish makes SwiGLU, GELU makes GEGLU.
    bias: add biases to all projections.
    dropout: rate before Wd.
    limit: clip x Wg from above to this value, and x Wu to plus or minus it (GPT-OSS).
    shift: added to x Wu (GPT-OSS: 1).
    gate_scale: factor of x Wg (Falcon-H1).
    out_scale: factor of the output (Falcon-H1).
  """

  d_ff: int = 1376
  act: Act = Swish()
  bias: bool = False
  dropout: float = 0.0
  limit: float | None = None
  shift: float = 0.0
  gate_scale: float = 1.0
  out_scale: float = 1.0

  stackable = True
  joined = (('gate', 'up'),)

  def check(self) -> Iterator[str]:
    if self.limit is not None and self.limit <= 0:
      yield f'limit={self.limit} clips everything. Expected more than 0, or none.'

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
    gate = Dense('DF', (D, s.d_ff), self.dims, bias=s.bias, name='gate')
    up = Dense('DF', (D, s.d_ff), self.dims, bias=s.bias, name='up')
    gate_BTF, up_BTF = project_jointly(x_BTD, gate, up, sizes_E=ctx.sizes_E)
    if s.gate_scale != 1:
      gate_BTF = gate_BTF * s.gate_scale
    if s.limit is not None:
      gate_BTF, up_BTF = gate_BTF.clip(max=s.limit), up_BTF.clip(-s.limit, s.limit)
    h_BTF = s.act(gate_BTF) * (up_BTF + s.shift if s.shift else up_BTF)
    h_BTF = nn.Dropout(s.dropout, deterministic=not ctx.train)(h_BTF)
    y_BTD = Dense('FD', (s.d_ff, D), self.dims, bias=s.bias, name='down')(h_BTF, ctx.sizes_E)
    return (y_BTD if s.out_scale == 1 else y_BTD * s.out_scale), 0.0
