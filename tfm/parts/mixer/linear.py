"""Causal linear attention, with a running sum in place of a key/value cache."""

from collections.abc import Iterator
import dataclasses
from typing import Any, ClassVar, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.elu import EluPlusOne
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, project_jointly
from tfm.parts.mask.causal import Causal
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.state import SEGMENT, Documents, Slot, documents, row_state, with_state

#: Tokens per chunk. Scores are computed within a chunk; the sums carry everything before it.
CHUNK = 64


@dataclasses.dataclass(frozen=True)
class LinearAttention(Mixer):
  """Causal attention with a feature map in place of the softmax (arXiv:2006.16236).

  y_t = f(q_t) S_t / (f(q_t) z_t + eps), with S_t = S_{t-1} + f(k_t) v_t^T and z_t = z_{t-1} +
  f(k_t). Long inputs are computed in chunks: scores within a chunk, S and z for all tokens before
  it. It costs 8 D N H + 4 N H^2 FLOPs per token. The state of a sequence is S and z in float32, N H
  (H + 1) + 1 numbers.

  Attributes:
    heads: N, the number of heads.
    head_dim: H, the size of a head; None: d_model / heads.
    feature: f, an elementwise function with values of at least 0.
    bias: the projections that have a bias, letters of 'qkvo'.
    eps: added to the normaliser.
  """

  heads: int = 8
  head_dim: int | None = None
  feature: Act = EluPlusOne()
  _: dataclasses.KW_ONLY
  bias: str = ''
  eps: float = 1e-6

  mask: ClassVar[Causal] = Causal()
  joined: ClassVar[tuple[tuple[str, ...], ...]] = (('q', 'k', 'v'),)

  def check(self) -> Iterator[str]:
    if self.heads < 1:
      yield f'heads={self.heads} is not a number of heads. Expected at least 1.'
    if self.head_dim is not None and self.head_dim < 1:
      yield (
        f'head_dim={self.head_dim} is not a size. Expected at least 1, or none for d_model / heads.'
      )
    if unknown := sorted(set(self.bias) - set('qkvo')):
      yield (
        f'bias={self.bias!r} has unknown letters {", ".join(unknown)}. Expected letters of qkvo.'
      )
    if self.eps < 0:
      yield f'eps={self.eps} is negative. Expected at least 0.'

  def fits(self, d_model):
    if self.head_dim is None and self.heads >= 1 and d_model % self.heads:
      yield (
        f'heads={self.heads} does not divide d_model={d_model}. '
        'Expected a divisor of d_model, or a value for head_dim.'
      )

  def size(self, d_model: int) -> int:
    """Return H, the size of a head."""
    return self.head_dim or d_model // self.heads

  def make(self, dims):
    return _LinearAttention(self, dims)

  def state(self, d_model):
    N, H = self.heads, self.size(d_model)
    return {
      'sum': Slot((N, H, H), 'float32', 'row'),
      'norm': Slot((N, H), 'float32', 'row'),
      SEGMENT: Slot((), 'int32', 'row'),
    }

  def flops(self, d_model, pairs):
    N, H = self.heads, self.size(d_model)
    return 8 * d_model * N * H + 4 * N * H * H

  def pairs(self, length):
    return 1.0


class _Sums(NamedTuple):
  """S and z of each sequence, and the number of the document that they sum over."""

  sum_BNRH: jax.Array
  norm_BNR: jax.Array
  number_B: jax.Array


class _Tokens(NamedTuple):
  """Features of queries and keys, values, and documents of the tokens of a chunk."""

  q_BTNR: jax.Array
  k_BTNR: jax.Array
  v_BTNH: jax.Array
  number_BT: jax.Array
  real_BT: jax.Array


class _LinearAttention(Module):
  spec: LinearAttention
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, (B, _, D) = self.spec, x_BTD.shape
    N, H = s.heads, s.size(D)
    dims = self.dims.replace(heads=N, head_dim=H)
    project = (Dense('DNH', (D, N, H), dims, bias=name in s.bias, name=name) for name in 'qkv')
    reduce = dims.run.precision.dtype('reduce')
    q_BTNH, k_BTNH, v_BTNH = (a.astype(reduce) for a in project_jointly(x_BTD, *project))
    rows = row_state(s.state(D), cache, B)
    docs = documents(ctx.info.segment_ids, rows[SEGMENT])
    before = _Sums(
      rows['sum'].astype(reduce), rows['norm'].astype(reduce), jnp.zeros((B,), jnp.int32)
    )
    tokens = _Tokens(s.feature(q_BTNH), s.feature(k_BTNH), v_BTNH, docs.number, docs.real)
    y_BTNH, after = attend(before, tokens, s.eps)
    new = {'sum': after.sum_BNRH, 'norm': after.norm_BNR, SEGMENT: docs.segment[:, -1]}
    cache = with_state(cache, new, lambda: _each(before, tokens, docs), docs.real)
    y_BTNH = y_BTNH.astype(x_BTD.dtype)
    return Dense('NHD', (N, H, D), dims, n_in=2, bias='o' in s.bias, name='o')(y_BTNH), cache


def attend(before: _Sums, tokens: _Tokens, eps: float) -> tuple[jax.Array, _Sums]:
  """Run linear attention over a sequence in chunks of `CHUNK` tokens.

  Args:
    before: the sums before the first token.
    tokens: features, values and documents of the tokens.
    eps: added to the normaliser.

  Returns:
    The output of each token, `[B, T, N, H]`, and the sums after the last one.
  """
  B, T, N, H = tokens.v_BTNH.shape
  if T <= CHUNK:
    after, y_BTNH = _chunk(before, tokens, eps)
    return y_BTNH, after
  fill = lambda a: jnp.pad(a, [(0, 0), (0, -T % CHUNK)] + [(0, 0)] * (a.ndim - 2))
  # The filler tokens are padding of the last document, so they leave its sums unchanged.
  tokens = jax.tree.map(fill, tokens)
  last_B1 = tokens.number_BT[:, T - 1 : T]
  padding_T = jnp.arange(tokens.number_BT.shape[1]) >= T
  tokens = tokens._replace(number_BT=jnp.where(padding_T[None], last_B1, tokens.number_BT))
  pieces = jax.tree.map(lambda a: a.reshape(B, -1, CHUNK, *a.shape[2:]).swapaxes(0, 1), tokens)
  after, y = jax.lax.scan(lambda sums, piece: _chunk(sums, piece, eps), before, pieces)
  return y.swapaxes(0, 1).reshape(B, -1, N, H)[:, :T], after


def _chunk_mask(tokens: _Tokens) -> jax.Array:
  """Return the causal mask of a chunk within documents, `[B, T, T]`."""
  T = tokens.number_BT.shape[1]
  same_BTS = tokens.number_BT[:, :, None] == tokens.number_BT[:, None, :]
  return same_BTS & jnp.tri(T, dtype=bool)[None] & tokens.real_BT[:, None, :]


def _chunk(before: _Sums, tokens: _Tokens, eps: float) -> tuple[_Sums, jax.Array]:
  """Return the sums after a chunk, and the output of each of its tokens."""
  q_BTNR, k_BTNR, v_BTNH, number_BT, real_BT = tokens
  score_BNTS = jnp.einsum('BTNR,BSNR->BNTS', q_BTNR, k_BTNR)
  score_BNTS = jnp.where(_chunk_mask(tokens)[:, None], score_BNTS, 0)
  own_BT11 = (number_BT == before.number_B[:, None])[..., None, None]
  y_BTNH = jnp.einsum('BNTS,BSNH->BTNH', score_BNTS, v_BTNH)
  y_BTNH += jnp.where(own_BT11, jnp.einsum('BTNR,BNRH->BTNH', q_BTNR, before.sum_BNRH), 0)
  norm_BTN = jnp.einsum('BNTS->BTN', score_BNTS)
  norm_BTN += jnp.where(own_BT11[..., 0], jnp.einsum('BTNR,BNR->BTN', q_BTNR, before.norm_BNR), 0)

  last_B = number_BT[:, -1]
  kept_BT11 = (real_BT & (number_BT == last_B[:, None]))[..., None, None]
  stays_B11 = (last_B == before.number_B)[:, None, None]
  k_BTNR = jnp.where(kept_BT11, k_BTNR, 0)
  sum_BNRH = jnp.where(stays_B11[..., None], before.sum_BNRH, 0) + jnp.einsum(
    'BTNR,BTNH->BNRH', k_BTNR, v_BTNH
  )
  norm_BNR = jnp.where(stays_B11, before.norm_BNR, 0) + jnp.sum(k_BTNR, axis=1)
  return _Sums(sum_BNRH, norm_BNR, last_B), y_BTNH / (norm_BTN + eps)[..., None]


def _each(before: _Sums, tokens: _Tokens, docs: Documents) -> dict[str, Any]:
  """Return the state after each token."""
  seen_BTS = _chunk_mask(tokens).astype(tokens.v_BTNH.dtype)
  own_BT111 = (tokens.number_BT == before.number_B[:, None])[..., None, None, None]
  sum_BTNRH = jnp.where(own_BT111, before.sum_BNRH[:, None], 0)
  norm_BTNR = jnp.where(own_BT111[..., 0], before.norm_BNR[:, None], 0)
  sum_BTNRH += jnp.einsum('BTS,BSNR,BSNH->BTNRH', seen_BTS, tokens.k_BTNR, tokens.v_BTNH)
  norm_BTNR += jnp.einsum('BTS,BSNR->BTNR', seen_BTS, tokens.k_BTNR)
  return {'sum': sum_BTNRH, 'norm': norm_BTNR, SEGMENT: docs.segment}
