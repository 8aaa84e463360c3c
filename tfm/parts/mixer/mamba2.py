"""Mamba-2: a state space model with a scalar decay per head."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any, ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.mask.causal import Causal
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.recurrent import ShortConv, decayed, each_state, in_chunks
from tfm.parts.state import SEGMENT, Documents, Slot, documents, row_state, with_state

#: The outputs of the input projection, in the order of published checkpoints.
INPUTS = ('gate', 'x', 'b', 'c', 'step')


@dataclasses.dataclass(frozen=True)
class Mamba2(Mixer):
  """A state space model with a scalar decay per head (Mamba-2, arXiv:2405.21060).

  The output is norm((c_t S_t + d x_t) * silu(z_t)) Wo, with S_t = exp(-A e_t) S_{t-1} + e_t b_t
  x_t^T. The step e_t = softplus(x_t We + c) is a scalar per head, clipped to `limits`. x, b and c
  are outputs of a short convolution and `act`. Long inputs are computed in chunks (see
  `tfm.parts.recurrent.decayed`).

  It costs 2 D (3 N H + 2 K R + N) + 6 N H R FLOPs per token. The state of a sequence is S and the
  last inputs of the convolution. It has N R H + (`conv` - 1) (N H + 2 K R) + 1 numbers.

  Attributes:
    heads: N, the number of heads.
    head_dim: H, the size of a head of x.
    d_state: R, the size of b and c.
    key_heads: K, the number of groups of heads that share b and c.
    conv: the number of tokens of the convolution.
    bias: whether the projections of x and of the output have a bias.
    conv_bias: whether the convolution has a bias.
    act: the activation after the convolution.
    norm: the norm of the output; None: no norm.
    norm_groups: the number of groups of channels that are normalised separately.
    gate_first: whether to multiply by the gate before the norm, or after it.
    limits: the minimum and maximum step.
    scales: factors of the gate, x, b, c and the step before the convolution (Falcon-H1).
  """

  heads: int = 8
  head_dim: int = 32
  d_state: int = 32
  key_heads: int = 1
  conv: int = 4
  _: dataclasses.KW_ONLY
  bias: bool = False
  conv_bias: bool = True
  act: Act = Swish()
  norm: Norm | None = RMSNorm(1e-5)
  norm_groups: int = 1
  gate_first: bool = True
  limits: tuple[float, float] = (0.0, math.inf)
  scales: tuple[float, float, float, float, float] = (1.0,) * 5

  mask: ClassVar[Causal] = Causal()
  joined: ClassVar[tuple[tuple[str, ...], ...]] = (INPUTS,)

  def check(self) -> Iterator[str]:
    for name in ('heads', 'head_dim', 'd_state', 'key_heads', 'conv', 'norm_groups'):
      if (value := getattr(self, name)) < 1:
        yield f'{name}={value} is not a size. Expected at least 1.'
        return
    if self.heads % self.key_heads:
      yield (
        f'heads={self.heads} is not a multiple of key_heads={self.key_heads}. '
        'Expected a divisor of heads.'
      )
    if self.heads * self.head_dim % self.norm_groups:
      width = self.heads * self.head_dim
      yield f'norm_groups={self.norm_groups} does not divide {width} channels. Expected a divisor.'
    if self.limits[0] > self.limits[1]:
      yield f'limits={self.limits} are not in order. Expected the minimum first.'

  def make(self, dims):
    return _Mamba2(self, dims)

  def state(self, d_model):
    return {
      'sum': Slot((self.heads, self.d_state, self.head_dim), 'float32', 'row'),
      'tail': Slot((self.conv - 1, self.channels), 'float32', 'row'),
      SEGMENT: Slot((), 'int32', 'row'),
    }

  @property
  def channels(self) -> int:
    """The number of channels of the convolution."""
    return self.heads * self.head_dim + 2 * self.key_heads * self.d_state

  def flops(self, d_model, pairs):
    inner, keys = self.heads * self.head_dim, self.key_heads * self.d_state
    return 2 * d_model * (3 * inner + 2 * keys + self.heads) + 6 * inner * self.d_state

  def pairs(self, length):
    return 1.0


class _Mamba2(Module):
  spec: Mamba2
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, (B, _, D), dims = self.spec, x_BTD.shape, self.dims
    N, H, R, K = s.heads, s.head_dim, s.d_state, s.key_heads
    outs: dict[str, tuple[str, tuple[int, ...]]] = {
      'gate': ('DNH', (N, H)), 'x': ('DNH', (N, H)), 'b': ('DKR', (K, R)), 'c': ('DKR', (K, R)),
      'step': ('DN', (N,)),
    }  # fmt: skip
    project = (
      Dense(letters, (D, *out), dims, bias=s.bias, name=name)
      for name, (letters, out) in outs.items()
    )
    inputs = []
    for a, scale in zip(project_jointly(x_BTD, *project), s.scales, strict=True):
      inputs.append(a if scale == 1 else a * scale)
    gate_BTNH, *convolved, step_BTN = inputs
    rows = row_state(s.state(D), cache, B)
    docs = documents(ctx.info.segment_ids, rows[SEGMENT])
    x_BTNH, b_BTKR, c_BTKR, tail = self._convolved(convolved, rows['tail'], docs)

    reduce = dims.run.precision.dtype('reduce')
    start = self.param('start', sharded(_log_count, 'N'), (N,), jnp.float32)
    shift = self.param('shift', sharded(small_steps, 'N'), (N,), jnp.float32)
    skip = self.param('skip', sharded(nn.initializers.ones, 'N'), (N,), jnp.float32)
    step_BTN = jax.nn.softplus(step_BTN.astype(reduce) + trailing(shift, 3)).clip(*s.limits)
    x_BTNH, b_BTKR, c_BTKR = (a.astype(reduce) for a in (x_BTNH, b_BTKR, c_BTKR))
    decay_BTN = -trailing(jnp.exp(start.astype(reduce)), 3) * step_BTN
    tokens = c_BTKR, b_BTKR, step_BTN[..., None] * x_BTNH, decay_BTN
    before = rows['sum'].astype(reduce)
    y_BTNH, after = in_chunks(decayed, before, docs, tokens)
    each = lambda: {
      'sum': each_state(decayed, before, docs, tokens),
      'tail': tail(True),
      SEGMENT: docs.segment,
    }
    new = {'sum': after, 'tail': tail(False), SEGMENT: docs.segment[:, -1]}
    cache = with_state(cache, new, each, docs.real)
    y_BTNH += trailing(skip.astype(reduce)[:, None], 4) * x_BTNH
    y_BTNH = self._gated(y_BTNH.astype(x_BTD.dtype), gate_BTNH)
    return Dense('NHD', (N, H, D), dims, n_in=2, bias=s.bias, name='o')(y_BTNH), cache

  def _convolved(
    self, inputs: list[jax.Array], tail_BPC: jax.Array, docs: Documents
  ) -> tuple[Any, ...]:
    """Return x, b and c after convolution and activation, and the `tail` function."""
    s, flat = self.spec, [a.reshape(*a.shape[:2], -1) for a in inputs]
    conv = ShortConv(s.channels, s.conv, self.dims, bias=s.conv_bias, name='conv')
    y_BTC, tail = conv(jnp.concatenate(flat, -1), tail_BPC, docs)
    inner, keys = flat[0].shape[-1], flat[1].shape[-1]
    parts = jnp.split(s.act(y_BTC), [inner, inner + keys], axis=-1)
    return *(part.reshape(a.shape) for part, a in zip(parts, inputs, strict=True)), tail

  def _gated(self, y_BTNH: jax.Array, gate_BTNH: jax.Array) -> jax.Array:
    """Return the gated and normalised output."""
    s, gate_BTNH = self.spec, jax.nn.silu(gate_BTNH)
    y_BTNH = y_BTNH * gate_BTNH if s.gate_first or s.norm is None else y_BTNH
    if s.norm is None:
      return y_BTNH
    grouped = y_BTNH.reshape(*y_BTNH.shape[:2], s.norm_groups, -1)
    y_BTKF = s.norm.make(self.dims, 'KF').copy(name='norm')(grouped)
    y_BTNH = y_BTKF.reshape(y_BTNH.shape)
    return y_BTNH if s.gate_first else y_BTNH * gate_BTNH


def _log_count(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
  """Return log A, with A = 1, 2, 3, ..."""
  del key
  return jnp.log(jnp.arange(1, shape[0] + 1, dtype=dtype))


def small_steps(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
  """Return inputs of softplus that make its values log-uniform in [0.001, 0.1].

  Args:
    key: a random key.
    shape: the shape.
    dtype: the dtype.

  Returns:
    An array of this shape and dtype.
  """
  low, high = math.log(0.001), math.log(0.1)
  step = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
  return step + jnp.log(-jnp.expm1(-step))
