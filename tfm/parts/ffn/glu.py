"""Gated feed-forward (arXiv:2002.05202): SwiGLU, GEGLU, ReGLU, bilinear by its activation."""

from collections.abc import Iterator
import dataclasses
import statistics

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, together
from tfm.parts.ffn.base import FFN
from tfm.parts.norm.base import Norm


@dataclasses.dataclass(frozen=True)
class Glu(FFN):
  """(act(x Wg) * (x Wu + shift)) Wd; as many parameters as an MLP of width f when d_ff = 2/3 f.

  `limit` keeps x Wg below it and x Wu within +- it (GPT-OSS, with `shift` 1). `gate_scale`
  multiplies x Wg and `out_scale` the output (Falcon-H1). `norm` normalises what Wd multiplies
  (BitNet); experts have none. `sparsity` is the share of x Wg that is cut to 0, if its numbers were
  normal: they lose what all but that share lie above (Gemma 3n)."""

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
      yield f'limit={self.limit} leaves nothing. Expected more than 0, or none.'
    if not 0 <= self.sparsity < 1:
      yield f'sparsity={self.sparsity} is not a share. Expected at least 0 and less than 1.'

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
    project = [
      Dense('DF', (D, s.d_ff), self.dims, bias=s.bias, name=name) for name in ('gate', 'up')
    ]
    gate_BTF, up_BTF = together(x_BTD, *project, sizes_E=ctx.sizes_E)
    gate_BTF = gate_BTF if s.gate_scale == 1 else gate_BTF * s.gate_scale
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
