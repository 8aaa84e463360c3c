"""Gated feed-forward networks: SwiGLU, GEGLU, ReGLU or bilinear, depending on the activation."""

from collections.abc import Iterator
import dataclasses
import functools
import math
import statistics

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.sliced import Slicing, SplitWeight, on_device, slice_count, sliced_glu
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

  def slices(self, dims, tokens, units, train):
    more = self.bias or self.norm is not None or self.sparsity or (self.dropout and train)
    if more or any(dims.adapter.wraps(n) or dims.rounding.wraps(n) for n in _NAMES):
      return 1
    if not dims.run.recomputes:
      return 1
    return slice_count(tokens, units, dims.run.precision.dtype('compute'), dims.run.ffn_slices)


class _Glu(nn.Module):
  spec: Glu
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx) -> tuple[jax.Array, float]:
    s, D = self.spec, self.dims.d_model
    if (slices := self._slices(x_BTD, ctx)) > 1:
      y_BTD = self._sliced(x_BTD, ctx, slices)
      return (y_BTD if s.out_scale == 1 else y_BTD * s.out_scale), 0.0
    gate = Dense('DF', (D, s.d_ff), self.dims, bias=s.bias, name='gate')
    up = Dense('DF', (D, s.d_ff), self.dims, bias=s.bias, name='up')
    gate_BTF, up_BTF = project_jointly(x_BTD, gate, up, sizes_E=ctx.sizes_E)
    h_BTF = _hidden(s, gate_BTF, up_BTF)
    if s.norm is not None:
      h_BTF = s.norm.make(self.dims, 'F').copy(name='norm')(h_BTF)
    h_BTF = nn.Dropout(s.dropout, deterministic=not ctx.train)(h_BTF)
    y_BTD = Dense('FD', (s.d_ff, D), self.dims, bias=s.bias, name='down')(h_BTF, ctx.sizes_E)
    return (y_BTD if s.out_scale == 1 else y_BTD * s.out_scale), 0.0

  def _slices(self, x_BTD: jax.Array, ctx: Ctx) -> int:
    """Return the slices of the backward pass."""
    kernels = self.variables.get('params', {})
    if self.is_initializing() or any(
      not isinstance(kernels.get(name, {}).get('kernel'), jax.Array | SplitWeight)
      for name in _NAMES
    ):
      return 1  # no weights, or prepared for decoding
    batch, width = (x_BTD.shape[0], x_BTD.shape[1]), self.spec.d_ff
    local = on_device(batch, width) if ctx.sizes_E is None else (math.prod(batch), width)
    return self.spec.slices(self.dims, *local, ctx.train)

  def _sliced(self, x_BTD: jax.Array, ctx: Ctx, slices: int) -> jax.Array:
    """Return the output, with a backward pass by slices of the hidden layer."""
    gate, up, down = (self.variables['params'][name]['kernel'] for name in _NAMES)
    places = None
    if isinstance(gate, SplitWeight):
      places = gate.place, up.place, down.place
      gate, up, down = gate.array, up.array, down.array
    weights = tuple(w.astype(x_BTD.dtype) for w in (gate, up, down))
    x = x_BTD if ctx.sizes_E is None else x_BTD.reshape(-1, x_BTD.shape[-1])
    options = Slicing(functools.partial(_hidden, self.spec), slices, places)
    y = sliced_glu(options, x, weights, ctx.sizes_E, ctx.scale_r1)
    return y.reshape(x_BTD.shape)


_NAMES = ('gate', 'up', 'down')


def _hidden(s: Glu, gate_BTF: jax.Array, up_BTF: jax.Array) -> jax.Array:
  """Return the hidden layer of x Wg and x Wu."""
  if s.gate_scale != 1:
    gate_BTF = gate_BTF * s.gate_scale
  if s.limit is not None:
    gate_BTF, up_BTF = gate_BTF.clip(max=s.limit), up_BTF.clip(-s.limit, s.limit)
  gate_BTF = _cut(gate_BTF, s.sparsity) if s.sparsity else gate_BTF
  return s.act(gate_BTF) * (up_BTF + s.shift if s.shift else up_BTF)


def _cut(gate_BTF: jax.Array, share: float) -> jax.Array:
  """Return how far each number lies above the quantile `share` of a normal distribution fitted to
  its token's.
  """
  mean_BT1, deviation_BT1 = (of(gate_BTF, -1, keepdims=True) for of in (jnp.mean, jnp.std))
  return jax.nn.relu(gate_BTF - (mean_BT1 + deviation_BT1 * statistics.NormalDist().inv_cdf(share)))
