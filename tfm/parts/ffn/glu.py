"""Gated feed-forward networks: SwiGLU, GEGLU, ReGLU or bilinear, depending on the activation."""

from collections.abc import Iterator
import dataclasses
import statistics

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.ffn.base import FFN
from tfm.parts.norm.base import Norm


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
    norm: normalises the input of Wd (BitNet). Experts cannot have one.
    sparsity: the share of x Wg that is set to 0, if x Wg is normally distributed: the values below
      the quantile of the share (Gemma 3n).
  """

  d_ff: int = 1376
  act: Act = Swish()
  bias: bool = False
  dropout: float = 0.0
  limit: float | None = None
  shift: float = 0.0
  gate_scale: float = 1.0
  out_scale: float = 1.0
  norm: Norm | None = None
  sparsity: float = 0.0

  joined = (('gate', 'up'),)

  def check(self) -> Iterator[str]:
    if self.limit is not None and self.limit <= 0:
      yield f'limit={self.limit} clips everything. Expected more than 0, or none.'
    if not 0 <= self.sparsity < 1:
      yield f'sparsity={self.sparsity} is not a fraction. Expected at least 0 and less than 1.'

  @property
  def stackable(self):
    return self.norm is None

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
    gate_BTF = _cut(gate_BTF, s.sparsity) if s.sparsity else gate_BTF
    h_BTF = s.act(gate_BTF) * (up_BTF + s.shift if s.shift else up_BTF)
    if s.norm is not None:
      h_BTF = s.norm.make(self.dims, 'F').copy(name='norm')(h_BTF)
    h_BTF = nn.Dropout(s.dropout, deterministic=not ctx.train)(h_BTF)
    y_BTD = Dense('FD', (s.d_ff, D), self.dims, bias=s.bias, name='down')(h_BTF, ctx.sizes_E)
    return (y_BTD if s.out_scale == 1 else y_BTD * s.out_scale), 0.0


def _cut(gate_BTF: jax.Array, share: float) -> jax.Array:
  """Return how far each number lies above the quantile `share` of a normal distribution fitted to
  its token's.
  """
  mean_BT1, deviation_BT1 = (of(gate_BTF, -1, keepdims=True) for of in (jnp.mean, jnp.std))
  return jax.nn.relu(gate_BTF - (mean_BT1 + deviation_BT1 * statistics.NormalDist().inv_cdf(share)))
