"""Lightning attention: linear attention with a fixed decay per head and layer."""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import trailing
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.sigmoid import Swish
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.mask.causal import Causal
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.recurrent import decayed, each_state, in_chunks
from tfm.parts.state import SEGMENT, Slot, documents, row_state, with_state


@dataclasses.dataclass(frozen=True)
class Lightning(Mixer):
  """Linear attention with a fixed decay per head and layer (arXiv:2401.04658, 2501.08313).

  The output is norm(q_t S_t) * sigmoid(x_t Wg) Wo, with S_t = exp(-r_n) S_{t-1} + k_t v_t^T in head
  n. q, k and v are projections of x after `act`. The decay rate is r_n = 2^(-8 n / N) (1 - l / (L
  - 1)), where n = 1, ..., N and l = 0, ..., L - 1 is the layer. It is 0 in the last layer. Long
  inputs are computed in chunks (`tfm.parts.recurrent.decayed`).

  It costs 10 D N H + 6 N H^2 FLOPs per token. The state of a sequence is S, N H^2 + 1 numbers.

  Attributes:
    heads: N, the number of heads.
    head_dim: H, the size of a head; None: d_model / heads.
    act: activation of q, k and v.
    norm: norm of the outputs of all heads, as one vector.
  """

  heads: int = 8
  head_dim: int | None = None
  act: Act = Swish()
  norm: Norm = RMSNorm()

  mask: ClassVar[Causal] = Causal()
  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('q', 'k', 'v', 'gate'),)

  def check(self) -> Iterator[str]:
    if self.heads < 1:
      yield f'heads={self.heads} is not a number of heads. Expected at least 1.'
    if self.head_dim is not None and self.head_dim < 1:
      yield (
        f'head_dim={self.head_dim} is not a size. Expected at least 1, or none for d_model / heads.'
      )

  def fits(self, d_model):
    if self.head_dim is None and self.heads >= 1 and d_model % self.heads:
      yield (
        f'heads={self.heads} does not divide d_model={d_model}. Expected a divisor, or head_dim.'
      )

  def size(self, d_model: int) -> int:
    """Return H, the size of a head."""
    return self.head_dim or d_model // self.heads

  def make(self, dims):
    return _Lightning(self, dims)

  def state(self, d_model):
    H = self.size(d_model)
    return {'sum': Slot((self.heads, H, H), 'float32', 'row'), SEGMENT: Slot((), 'int32', 'row')}

  def flops(self, d_model, pairs):
    N, H = self.heads, self.size(d_model)
    return 10 * d_model * N * H + 6 * N * H * H

  def pairs(self, length):
    return 1.0


class _Lightning(Module):
  spec: Lightning
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, (B, T, D), dims = self.spec, x_BTD.shape, self.dims
    N, H = s.heads, s.size(D)
    project = (Dense('DNH', (D, N, H), dims, name=name) for name in ('q', 'k', 'v', 'gate'))
    *qkv, gate_BTNH = project_jointly(x_BTD, *project)
    rows = row_state(s.state(D), cache, B)
    docs = documents(ctx.info.segment_ids, rows[SEGMENT])

    reduce = dims.run.precision.dtype('reduce')
    q_BTNH, k_BTNH, v_BTNH = (s.act(a).astype(reduce) for a in qkv)
    decay_BTN = jnp.broadcast_to(
      trailing(-rates(N, ctx.layer, dims.depth).astype(reduce), 3), (B, T, N)
    )
    tokens, before = (q_BTNH, k_BTNH, v_BTNH, decay_BTN), rows['sum'].astype(reduce)
    y_BTNH, after = in_chunks(decayed, before, docs, tokens)
    each = lambda: {'sum': each_state(decayed, before, docs, tokens), SEGMENT: docs.segment}
    cache = with_state(cache, {'sum': after, SEGMENT: docs.segment[:, -1]}, each, docs.real)

    norm = s.norm.make(dims, 'N').copy(name='norm')
    y_BTNH = norm(y_BTNH.astype(x_BTD.dtype).reshape(B, T, N * H)).reshape(B, T, N, H)
    return Dense('NHD', (N, H, D), dims, n_in=2, name='o')(
      jax.nn.sigmoid(gate_BTNH) * y_BTNH
    ), cache


def rates(N: int, layer: jax.Array | int | None, depth: int) -> jax.Array:
  """Return the decay rate of each head of a layer.

  Args:
    N: number of heads.
    layer: index of the layer from 0; None, outside a stack: 0.
    depth: number of layers.

  Returns:
    The rates, float32 `[N]`.
  """
  number = jnp.asarray(0 if layer is None else layer, jnp.float32)
  # 1e-5 as in the published models: no division by 0, and a small rate in the last layer.
  share = 1 - number / (depth - 1 + 1e-5) + 1e-5
  return share * 2.0 ** (-8 * jnp.arange(1, N + 1, dtype=jnp.float32) / N)
