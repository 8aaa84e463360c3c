"""Gated DeltaNet: linear attention with decay and the delta rule."""

from collections.abc import Iterator
import dataclasses
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
from tfm.parts.recurrent import ShortConv, delta, each_state, in_chunks
from tfm.parts.state import SEGMENT, Documents, Slot, documents, row_state, with_state


@dataclasses.dataclass(frozen=True)
class GatedDelta(Mixer):
  """Linear attention with decay and the delta rule (Gated DeltaNet, arXiv:2412.06464).

  The output is norm(q_t S_t) * silu(z_t) Wo, with S_t = a_t S_{t-1} + k_t u_t^T and
  u_t = b_t (v_t - a_t k_t S_{t-1}). The decay a_t = exp(-A softplus(x_t Wa + c)) and the rate
  b_t = sigmoid(x_t Wb) are scalars per head. q, k and v are outputs of a short convolution and
  `act`; then q and k are normalised to length 1, and q is divided by sqrt(R). Long inputs are
  computed in chunks (see `tfm.parts.recurrent.delta`).

  It costs 4 D K R + 6 D N H + 6 N R H FLOPs per token. The state of a sequence is S and the last
  inputs of the convolution. It has N R H + (`conv` - 1) (2 K R + N H) + 1 numbers.

  Attributes:
    heads: N, the number of value heads.
    key_heads: K, the number of query and key heads, each shared by N / K consecutive value heads.
    key_dim: R, the size of a query or a key.
    head_dim: H, the size of a value.
    conv: the number of tokens of the convolution.
    act: the activation after the convolution.
    norm: the norm of each head's output, with one scale for all heads.
  """

  heads: int = 8
  key_heads: int = 4
  key_dim: int = 32
  head_dim: int = 32
  conv: int = 4
  act: Act = Swish()
  norm: Norm = RMSNorm()

  mask: ClassVar[Causal] = Causal()
  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('q', 'k', 'v', 'gate', 'rate', 'decay'),)

  def check(self) -> Iterator[str]:
    for name in ('heads', 'key_heads', 'key_dim', 'head_dim', 'conv'):
      if (value := getattr(self, name)) < 1:
        yield f'{name}={value} is not a size. Expected at least 1.'
    if self.key_heads > 0 and self.heads % self.key_heads:
      yield (
        f'heads={self.heads} is not a multiple of key_heads={self.key_heads}. '
        'Expected a divisor of heads.'
      )

  def make(self, dims):
    return _GatedDelta(self, dims)

  def state(self, d_model):
    return {
      'sum': Slot((self.heads, self.key_dim, self.head_dim), 'float32', 'row'),
      'tail': Slot((self.conv - 1, self.channels), 'float32', 'row'),
      SEGMENT: Slot((), 'int32', 'row'),
    }

  @property
  def channels(self) -> int:
    """The number of channels of the convolution."""
    return 2 * self.key_heads * self.key_dim + self.heads * self.head_dim

  def flops(self, d_model, pairs):
    keys, values = self.key_heads * self.key_dim, self.heads * self.head_dim
    return d_model * (4 * keys + 6 * values + 4 * self.heads) + 6 * values * self.key_dim

  def pairs(self, length):
    return 1.0


class _GatedDelta(Module):
  spec: GatedDelta
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, (B, _, D), dims = self.spec, x_BTD.shape, self.dims
    N, K, R, H = s.heads, s.key_heads, s.key_dim, s.head_dim
    heads: dict[str, tuple[str, tuple[int, ...]]] = {
      'q': ('DKR', (K, R)), 'k': ('DKR', (K, R)), 'v': ('DNH', (N, H)), 'gate': ('DNH', (N, H)),
      'rate': ('DN', (N,)),
      'decay': ('DN', (N,)),
    }  # fmt: skip
    project = (Dense(letters, (D, *out), dims, name=name) for name, (letters, out) in heads.items())
    *qkv, gate_BTNH, rate_BTN, decay_BTN = project_jointly(x_BTD, *project)
    rows = row_state(s.state(D), cache, B)
    docs = documents(ctx.info.segment_ids, rows[SEGMENT])
    q_BTKR, k_BTKR, v_BTNH, tail = self._convolved(qkv, rows['tail'], docs)

    reduce = dims.run.precision.dtype('reduce')
    start = self.param('start', sharded(_log_uniform, 'N'), (N,), jnp.float32)
    shift = self.param('shift', sharded(nn.initializers.ones, 'N'), (N,), jnp.float32)
    step_BTN = jax.nn.softplus(decay_BTN.astype(reduce) + trailing(shift, 3))
    repeated = lambda a: jnp.repeat(_unit(a.astype(reduce)), N // K, axis=2)
    tokens = (
      repeated(q_BTKR) * R**-0.5,
      repeated(k_BTKR),
      v_BTNH.astype(reduce),
      jax.nn.sigmoid(rate_BTN.astype(reduce)),
      -trailing(jnp.exp(start.astype(reduce)), 3) * step_BTN,
    )
    before = rows['sum'].astype(reduce)
    y_BTNH, after = in_chunks(delta, before, docs, tokens)
    each = lambda: {
      'sum': each_state(delta, before, docs, tokens),
      'tail': tail(True),
      SEGMENT: docs.segment,
    }
    new = {'sum': after, 'tail': tail(False), SEGMENT: docs.segment[:, -1]}
    cache = with_state(cache, new, each, docs.real)
    y_BTNH = s.norm.make(dims, 'H').copy(name='norm')(y_BTNH.astype(x_BTD.dtype))
    y_BTNH = y_BTNH * jax.nn.silu(gate_BTNH)
    return Dense('NHD', (N, H, D), dims, n_in=2, name='o')(y_BTNH), cache

  def _convolved(
    self, qkv: list[jax.Array], tail_BPC: jax.Array, docs: Documents
  ) -> tuple[Any, ...]:
    """Return q, k and v after convolution and activation, and the `tail` function."""
    s, flat = self.spec, [a.reshape(*a.shape[:2], -1) for a in qkv]
    conv = ShortConv(s.channels, s.conv, self.dims, bias=False, name='conv')
    y_BTC, tail = conv(jnp.concatenate(flat, -1), tail_BPC, docs)
    parts = jnp.split(s.act(y_BTC), [flat[0].shape[-1], 2 * flat[0].shape[-1]], axis=-1)
    return *(part.reshape(a.shape) for part, a in zip(parts, qkv, strict=True)), tail


def _unit(x: jax.Array) -> jax.Array:
  """Return x / sqrt(sum x^2 + 1e-6) over the last axis."""
  return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-6)


def _log_uniform(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
  """Return log A, A uniform in [0.01, 16]."""
  return jnp.log(jax.random.uniform(key, shape, dtype, 0.01, 16.0))
