"""Griffin's recurrent block: a gated linear recurrence per channel."""

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
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.mask.causal import Causal
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.recurrent import Reach, ShortConv, each_state, in_chunks, linear_scan
from tfm.parts.state import SEGMENT, Slot, documents, row_state, with_state

#: The constant c of the paper.
SHARPNESS = 8.0
#: The maximum gradient of sqrt(1 - a^2), as in the published code.
_STEEPEST = 1000.0


@dataclasses.dataclass(frozen=True)
class RGLRU(Mixer):
  """A gated linear recurrence per channel after a short convolution (Griffin, arXiv:2402.19427).

  The output is (h_t * act(x_t Wg)) Wo, with h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t u_t. u is x Wx
  after the convolution. The gates are i_t = sigmoid(u_t Wi + bi) and log a_t = -8 softplus(l)
  sigmoid(u_t Wa + ba), with block-diagonal Wi and Wa. The first token of a document has h = i u. An
  associative scan runs within each chunk of tokens.

  It costs 6 D F + 4 F^2 / N + 2 `conv` F FLOPs per token. The state of a sequence is h and the last
  inputs of the convolution, `conv` F + 1 numbers.

  Attributes:
    width: F, the number of channels.
    heads: N, the number of blocks of Wi and Wa.
    conv: the number of tokens of the convolution.
    act: the activation of the output gate.
  """

  width: int = 256
  heads: int = 8
  conv: int = 4
  act: Act = GeluTanh()

  mask: ClassVar[Causal] = Causal()
  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('x', 'gate'),)

  def check(self) -> Iterator[str]:
    for name in ('width', 'heads', 'conv'):
      if (value := getattr(self, name)) < 1:
        yield f'{name}={value} is not a size. Expected at least 1.'
    if self.heads > 0 and self.width % self.heads:
      yield f'heads={self.heads} does not divide width={self.width}. Expected a divisor.'

  def make(self, dims):
    return _RGLRU(self, dims)

  def state(self, d_model):
    return {
      'sum': Slot((self.width,), 'float32', 'row'),
      'tail': Slot((self.conv - 1, self.width), 'float32', 'row'),
      SEGMENT: Slot((), 'int32', 'row'),
    }

  def flops(self, d_model, pairs):
    return 6 * d_model * self.width + 4 * self.width**2 // self.heads + 2 * self.conv * self.width

  def pairs(self, length):
    return 1.0


class _RGLRU(Module):
  spec: RGLRU
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, (B, _, D), dims = self.spec, x_BTD.shape, self.dims
    F, reduce = s.width, self.dims.run.precision.dtype('reduce')
    project = (Dense('DF', (D, F), dims, bias=True, name=name) for name in ('x', 'gate'))
    x_BTF, gate_BTF = project_jointly(x_BTD, *project)
    rows = row_state(s.state(D), cache, B)
    docs = documents(ctx.info.segment_ids, rows[SEGMENT])
    x_BTF, tail = ShortConv(F, s.conv, dims, name='conv')(x_BTF, rows['tail'], docs)

    blocks_BTNH = x_BTF.reshape(*x_BTF.shape[:2], s.heads, -1)
    input_BTF, decay_BTF = (
      _Blocks(dims, name=name)(blocks_BTNH).astype(reduce) for name in ('input', 'decay')
    )
    start_F = self.param('start', sharded(_slow, 'F'), (F,), jnp.float32).astype(reduce)
    log_BTF = -SHARPNESS * jax.nn.sigmoid(decay_BTF) * trailing(jax.nn.softplus(start_F), 3)
    tokens = log_BTF, jax.nn.sigmoid(input_BTF) * x_BTF.astype(reduce)
    before = rows['sum'].astype(reduce)
    h_BTF, after = in_chunks(_recurrence, before, docs, tokens)
    each = lambda: {
      'sum': each_state(_recurrence, before, docs, tokens),
      'tail': tail(True),
      SEGMENT: docs.segment,
    }
    new = {'sum': after, 'tail': tail(False), SEGMENT: docs.segment[:, -1]}
    cache = with_state(cache, new, each, docs.real)
    y_BTF = h_BTF.astype(x_BTD.dtype) * s.act(gate_BTF)
    return Dense('FD', (F, D), dims, bias=True, name='o')(y_BTF), cache


def _recurrence(state_BF: jax.Array, reach: Reach, tokens: Any) -> tuple[jax.Array, jax.Array]:
  """Return h after a chunk, and after each of its tokens."""
  log_BTF, u_BTF = tokens
  real, starts = reach.real_BT[..., None], reach.starts_BT[..., None]
  share_BTF = jnp.where(starts, 1, _sqrt(-jnp.expm1(2 * log_BTF)))
  a_BTF = jnp.where(real, jnp.where(starts, 0, jnp.exp(log_BTF)), 1)
  h_BTF = linear_scan(a_BTF, jnp.where(real, share_BTF * u_BTF, 0), state_BF)
  return h_BTF[:, -1], h_BTF


@jax.custom_vjp
def _sqrt(x: jax.Array) -> jax.Array:
  """Return sqrt(x), with the gradient limited to `_STEEPEST`."""
  return jnp.sqrt(x)


def _sqrt_backward(x, g):
  return (g * jax.lax.rsqrt(jnp.maximum(4 * x, _STEEPEST**-2)),)


_sqrt.defvjp(lambda x: (jnp.sqrt(x), x), _sqrt_backward)


class _Blocks(Module):
  """x W + b with block-diagonal W: `[B, T, N, H] -> [B, T, N H]`."""

  dims: Dims

  @nn.compact
  def __call__(self, x_BTNH: jax.Array) -> jax.Array:
    B, T, N, H = x_BTNH.shape
    dtype = self.dims.run.precision.dtype('param')
    init = self.dims.init.weight('blocks', H, H, self.dims)
    weight_NHH = self.param('weight', sharded(init, 'NHH'), (N, H, H), dtype).astype(x_BTNH.dtype)
    bias_NH = self.param('bias', sharded(nn.initializers.zeros, 'NH'), (N, H), dtype).astype(
      x_BTNH.dtype
    )
    y_BTNH = jnp.einsum('btnh,nhr->btnr', x_BTNH, weight_NHH) + trailing(bias_NH, 4)
    return y_BTNH.reshape(B, T, N * H)


def _slow(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
  """Return l such that the square of exp(-softplus(l)) is uniform in [0.9^2, 0.999^2]."""
  square = jax.random.uniform(key, shape, dtype, 0.9**2 + 1e-8, 0.999**2 + 1e-8)
  return jnp.log(jnp.exp(-0.5 * jnp.log(square)) - 1)
