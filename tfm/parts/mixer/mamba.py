"""Mamba: a selective state space model with a diagonal system per channel."""

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
from tfm.parts.mixer.mamba2 import small_steps
from tfm.parts.norm.base import Norm
from tfm.parts.recurrent import Reach, ShortConv, each_state, in_chunks, linear_scan
from tfm.parts.state import SEGMENT, Slot, documents, row_state, with_state


@dataclasses.dataclass(frozen=True)
class Mamba(Mixer):
  """A selective state space model with a diagonal system per channel (arXiv:2312.00752).

  The output is (c_t S_t + d x_t) * silu(z_t) Wo, with S_t = exp(-A e_t) S_{t-1} + e_t b_t x_t in
  each channel. x is the output of a short convolution and `act`. The step e_t = softplus(x_t Wr We
  + c), b and c are projections of x. An associative scan runs within each chunk of tokens.

  It costs 6 D F + 2 F (2 R + 2 H) + 9 F H FLOPs per token. The state of a sequence is S and the
  last inputs of the convolution, F H + (`conv` - 1) F + 1 numbers.

  Attributes:
    width: F, the number of channels.
    d_state: H, the state size of a channel.
    rank: R, the rank of the projection to steps.
    conv: the number of tokens of the convolution.
    bias: whether the projections of x and of the output have a bias.
    conv_bias: whether the convolution has a bias.
    act: the activation after the convolution.
    norm: the norm of b, c and the steps before We (Falcon Mamba, Jamba); None: no norm.
  """

  width: int = 256
  d_state: int = 16
  rank: int = 8
  conv: int = 4
  _: dataclasses.KW_ONLY
  bias: bool = False
  conv_bias: bool = True
  act: Act = Swish()
  norm: Norm | None = None

  mask: ClassVar[Causal] = Causal()
  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('x', 'gate'), ('rank', 'b', 'c'))

  def check(self) -> Iterator[str]:
    for name in ('width', 'd_state', 'rank', 'conv'):
      if (value := getattr(self, name)) < 1:
        yield f'{name}={value} is not a size. Expected at least 1.'

  def make(self, dims):
    return _Mamba(self, dims)

  def state(self, d_model):
    return {
      'sum': Slot((self.width, self.d_state), 'float32', 'row'),
      'tail': Slot((self.conv - 1, self.width), 'float32', 'row'),
      SEGMENT: Slot((), 'int32', 'row'),
    }

  def flops(self, d_model, pairs):
    F, H, R = self.width, self.d_state, self.rank
    return 6 * d_model * F + 2 * F * (2 * R + 2 * H) + 9 * F * H

  def pairs(self, length):
    return 1.0


class _Mamba(Module):
  spec: Mamba
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, (B, _, D), dims = self.spec, x_BTD.shape, self.dims
    F, H, R = s.width, s.d_state, s.rank
    project = (Dense('DF', (D, F), dims, bias=s.bias, name=name) for name in ('x', 'gate'))
    x_BTF, gate_BTF = project_jointly(x_BTD, *project)
    rows = row_state(s.state(D), cache, B)
    docs = documents(ctx.info.segment_ids, rows[SEGMENT])
    x_BTF, tail = ShortConv(F, s.conv, dims, bias=s.conv_bias, name='conv')(
      x_BTF, rows['tail'], docs
    )
    x_BTF = s.act(x_BTF)

    small = (
      Dense(letters, (F, n), dims, name=name) for name, letters, n in _small_projections(R, H)
    )
    step_BTR, b_BTH, c_BTH = project_jointly(x_BTF, *small)
    if s.norm is not None:
      normed = lambda a, name, axis: s.norm.make(dims, axis).copy(name=f'{name}_norm')(a)
      step_BTR = normed(step_BTR, 'rank', 'R')
      b_BTH, c_BTH = normed(b_BTH, 'b', 'H'), normed(c_BTH, 'c', 'H')
    reduce = dims.run.precision.dtype('reduce')
    start = self.param('start', sharded(_log_count, 'FH'), (F, H), jnp.float32)
    shift = self.param('shift', sharded(small_steps, 'F'), (F,), jnp.float32)
    skip = self.param('skip', sharded(nn.initializers.ones, 'F'), (F,), jnp.float32)
    step_BTF = Dense('RF', (R, F), dims, name='step')(step_BTR).astype(reduce)
    step_BTF = jax.nn.softplus(step_BTF + trailing(shift.astype(reduce), 3))
    x_BTF, b_BTH, c_BTH = (a.astype(reduce) for a in (x_BTF, b_BTH, c_BTH))
    tokens, chunk = (step_BTF, x_BTF, b_BTH, c_BTH), _selective(-jnp.exp(start.astype(reduce)))
    before = rows['sum'].astype(reduce)
    y_BTF, after = in_chunks(chunk, before, docs, tokens)
    each = lambda: {
      'sum': each_state(chunk, before, docs, tokens),
      'tail': tail(True),
      SEGMENT: docs.segment,
    }
    new = {'sum': after, 'tail': tail(False), SEGMENT: docs.segment[:, -1]}
    cache = with_state(cache, new, each, docs.real)
    y_BTF = (y_BTF + trailing(skip.astype(reduce), 3) * x_BTF).astype(x_BTD.dtype)
    y_BTF = y_BTF * jax.nn.silu(gate_BTF)
    return Dense('FD', (F, D), dims, bias=s.bias, name='o')(y_BTF), cache


def _small_projections(R: int, H: int) -> tuple[tuple[str, str, int], ...]:
  """Return (name, axes, size) of the projections to step rank, b and c."""
  return ('rank', 'FR', R), ('b', 'FH', H), ('c', 'FH', H)


def _selective(rate_FH: jax.Array) -> Any:
  """Return the recurrence of a chunk, given -A."""

  def chunk(state_BFH: jax.Array, reach: Reach, tokens: Any) -> tuple[jax.Array, jax.Array]:
    step_BTF, x_BTF, b_BTH, c_BTH = tokens
    real, starts = (a[..., None, None] for a in (reach.real_BT, reach.starts_BT))
    a_BTFH = jnp.exp(step_BTF[..., None] * trailing(rate_FH, 4))
    a_BTFH = jnp.where(real, jnp.where(starts, 0, a_BTFH), 1)
    b_BTFH = jnp.where(real, (step_BTF * x_BTF)[..., None] * b_BTH[:, :, None], 0)
    h_BTFH = linear_scan(a_BTFH, b_BTFH, state_BFH)
    return h_BTFH[:, -1], jnp.einsum('BTFH,BTH->BTF', h_BTFH, c_BTH)

  return chunk


def _log_count(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
  """Return log A, with A = 1, 2, 3, ... in each channel."""
  del key
  return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype))[None], shape)
