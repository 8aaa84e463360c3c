"""Multi-head latent attention: every key and value is made of one short latent a token
(DeepSeek-V2).
"""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.contract import contract
from tfm.parts.dense import Dense, weight
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.attention import make_scores
from tfm.parts.mixer.base import Cache
from tfm.parts.mixer.masked import MaskedMixer, Told, told
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.parts.state import Slot
from tfm.parts.stored import Stored


@dataclasses.dataclass(frozen=True)
class MLA(MaskedMixer):
  """softmax((q_n k_n + q_r k_r) scale) v Wo, with c = norm(x Wc), k_n = c Wk and v = c Wv a head
  (arXiv:2405.04434).

  A head has `nope_dim` numbers without a position and `rope_dim` with one; the rotated key k_r =
  rotate(x Wr) is shared by all heads, and values have `v_dim` numbers. Queries come from a latent
  of `q_rank` numbers, normed as c is, or straight from x (None, as in V2-Lite). Only (c, k_r) is
  cached, `kv_rank` + `rope_dim` numbers a token.

  q_n k_n = q_n Wk^T c and A v = (A c) Wv: with a cache the heads ask the latents themselves, one
  key head for all (absorbed), where that is cheaper than making keys and values of every cached
  token (expanded).

  `relative` sees q_r and k_r only; DeepSeek's layout is 'interleaved'. `scale` None is (nope_dim +
  rope_dim) ** -0.5 times what the relative position asks for (YaRN's `mscale_all`). `bias` names
  the projections from x and to it that have one: 'q' (queries or their latent), 'c' (latent and
  shared key), 'o'. The rest is as in `Attention`."""

  heads: int = 8
  q_rank: int | None = None
  kv_rank: int = 512
  nope_dim: int = 128
  rope_dim: int = 64
  v_dim: int = 128
  relative: Relative = RoPE(layout='interleaved')
  mask: Mask = Causal()
  norm: Norm = RMSNorm()
  _: dataclasses.KW_ONLY
  bias: str = ''
  scale: float | None = None
  cap: float | None = None
  sink: bool = False
  dropout: float = 0.0

  def check(self) -> Iterator[str]:
    for name in ('heads', 'kv_rank', 'nope_dim', 'rope_dim', 'v_dim'):
      if getattr(self, name) < 1:
        yield f'{name}={getattr(self, name)} is not a size. Expected at least 1.'
    if self.q_rank is not None and self.q_rank < 1:
      yield f'q_rank={self.q_rank} is not a size. Expected at least 1, or none for queries straight from x.'
    if odd := sorted(set(self.bias) - set('qco')):
      yield f'bias={self.bias!r} names no projection {", ".join(odd)}. Expected letters of qco.'

  def fits(self, d_model):
    yield from (f'relative: {m}' for m in self.relative.fits(self.rope_dim))

  @property
  def qk_dim(self) -> int:
    """How many numbers of a head a score is made of."""
    return self.nope_dim + self.rope_dim

  @property
  def latent_dim(self) -> int:
    """How many numbers of a token are cached."""
    return self.kv_rank + self.rope_dim

  def told_dim(self, d_model):
    return self.rope_dim

  def value_dim(self, d_model):
    return self.v_dim

  def make(self, dims):
    return _MLA(self, dims)

  def state(self, d_model):
    return {'k': Slot((1, self.latent_dim))}

  def flops(self, d_model, pairs):
    return self._projections(d_model) + 2 * pairs * self.heads * (self.qk_dim + self.v_dim)

  def absorbed_flops(self, d_model: int, pairs: float) -> float:
    """`flops` of a decoded token: as many for the projections, more for each token that it looks
    at.
    """
    return self._projections(d_model) + 2 * pairs * self.heads * 2 * self.latent_dim

  def _projections(self, d_model: int) -> int:
    N, queries = self.heads, self.heads * self.qk_dim
    q = d_model * queries if self.q_rank is None else self.q_rank * (d_model + queries)
    return 2 * (
      q
      + d_model * self.latent_dim
      + N * self.kv_rank * (self.nope_dim + self.v_dim)
      + N * self.v_dim * d_model
    )

  def absorbs(self, T: int, S: int) -> bool:
    """Whether T queries of S cached tokens cost fewer FLOPs in latent space than with the keys and
    values of all S.
    """
    up = self.kv_rank * (self.nope_dim + self.v_dim)
    return T * up + T * S * 2 * self.latent_dim < S * up + T * S * (self.qk_dim + self.v_dim)


class _MLA(Module):
  spec: MLA
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, D, N = self.spec, self.dims.d_model, self.spec.heads
    dims = self.dims.replace(heads=N, head_dim=s.qk_dim, causal=s.mask.causal)
    # All that a relative position sees of a head is the part that has one.
    relative = told(s, dims.replace(head_dim=s.rope_dim, value_dim=s.v_dim), ctx)
    q_BTNH = self._queries(dims, x_BTD, relative, ctx.info)
    new = {'k': self._latents(dims, x_BTD, relative, ctx.info)}
    kept, k_info, cache = dims.run.cache.extend(cache, new, ctx.info, ctx.slot, s.lookback)
    up_k = _Up(s.kv_rank, N, s.nope_dim, dims, name='k')
    up_v = _Up(s.kv_rank, N, s.v_dim, dims, name='v')
    absorb = cache is not None and s.absorbs(x_BTD.shape[1], kept['k'].shape[1])
    q, k, v = (self._absorbed if absorb else self._expanded)(q_BTNH, kept['k'], up_k, up_v)
    scores = self._scores(ctx, relative, s.kv_rank if absorb else s.nope_dim)
    if absorb and scores.added:
      # What is added to values is no latent: it is read beside them.
      v = jnp.pad(v, [(0, 0)] * 3 + [(0, s.v_dim)])
      scores = dataclasses.replace(
        scores, added=tuple(a.behind(s.latent_dim) for a in scores.added)
      )
    y_BTNH = dims.run.attend(q, k, v, ctx.info, k_info, scores, dims.run.precision.reduce)
    if absorb:
      beside, y_BTNH = y_BTNH[..., s.latent_dim :], up_v.lift(y_BTNH[..., : s.kv_rank])
      y_BTNH = y_BTNH + beside if scores.added else y_BTNH
    return Dense('NHD', (N, s.v_dim, D), dims, n_in=2, bias='o' in s.bias, name='o')(y_BTNH), cache

  def _scores(self, ctx, relative: Told, plain):
    """How scores are formed of queries and keys whose first `plain` numbers have no position."""
    s = self.spec
    of_turned = lambda f: lambda q, k, *infos: f(q[..., plain:], k[..., plain:], *infos)
    contents = tuple(map(of_turned, relative.contents))
    added = relative.biases(s.heads), contents, relative.products, relative.added
    scores = make_scores(self, s, s.qk_dim, ctx, s.mask & Segments(), *added)
    return (
      scores
      if s.scale is not None
      else dataclasses.replace(scores, scale=scores.scale * relative.score_scale)
    )

  def _queries(self, dims, x_BTD, relative, info):
    """[q_n, rotated q_r] of every head."""
    s, bias, D = self.spec, 'q' in self.spec.bias, dims.d_model
    if s.q_rank is None:
      q_BTNH = Dense('DNH', (D, s.heads, s.qk_dim), dims, bias=bias, name='q')(x_BTD)
    else:
      q_BTR = Dense('DR', (D, s.q_rank), dims, bias=bias, name='q_latent')(x_BTD)
      q_BTR = s.norm.make(dims, 'R').copy(name='q_norm')(q_BTR)
      q_BTNH = Dense('RNH', (s.q_rank, s.heads, s.qk_dim), dims, name='q')(q_BTR)
    plain, turned = jnp.split(q_BTNH, [s.nope_dim], -1)
    return jnp.concatenate([plain, relative.queries(turned, info)], -1)

  def _latents(self, dims, x_BTD, relative, info):
    """[c, rotated k_r] of every token, as the one key head of all heads."""
    s, bias, D = self.spec, 'c' in self.spec.bias, dims.d_model
    c_BTR = Dense('DR', (D, s.kv_rank), dims, bias=bias, name='c')(x_BTD)
    c_BTR = s.norm.make(dims, 'R').copy(name='c_norm')(c_BTR)
    k_BTKH = Dense('DH', (D, s.rope_dim), dims, bias=bias, name='k_rope')(x_BTD)[:, :, None]
    return jnp.concatenate([c_BTR[:, :, None], relative.rotate(k_BTKH, info)], -1)

  def _expanded(self, q_BTNH, latent_BSKd, up_k, up_v):
    """Queries, keys and values of every head."""
    c_BSKR, k_rope = jnp.split(latent_BSKd, [self.spec.kv_rank], -1)
    c_BSR, N = c_BSKR[:, :, 0], self.spec.heads
    k_rope = jnp.broadcast_to(k_rope, (*k_rope.shape[:2], N, k_rope.shape[-1]))
    return q_BTNH, jnp.concatenate([up_k(c_BSR), k_rope], -1), up_v(c_BSR)

  def _absorbed(self, q_BTNH, latent_BSKd, up_k, up_v):
    """Queries of latents, and the latents as the keys and values of one head."""
    plain, turned = jnp.split(q_BTNH, [self.spec.nope_dim], -1)
    # Values are the first `kv_rank` numbers of a key; mixing whole keys costs less than cutting a
    # copy of the cache.
    return jnp.concatenate([up_k.absorb(plain), turned], -1), latent_BSKd, latent_BSKd


class _Up(Module):
  """W of every head, from latents to what a head reads of them; its one parameter also serves in
  latent space.
  """

  rank: int
  heads: int
  size: int
  dims: Dims

  def setup(self):
    shape, dims = (self.rank, self.heads, self.size), self.dims
    init = sharded(
      dims.init.weight(self.name or '', self.rank, self.heads * self.size, dims), 'RNH'
    )
    self.kernel = weight(self, 'kernel', init, shape, dims.run.precision.dtype('param'))

  def __call__(self, c_BSR: jax.Array) -> jax.Array:
    """c W: what each head reads of each token."""
    kernel = self.kernel
    return (
      kernel.contract(c_BSR)
      if isinstance(kernel, Stored)
      else contract(c_BSR, kernel.astype(c_BSR.dtype))
    )

  def absorb(self, q_BTNH: jax.Array) -> jax.Array:
    """q W^T: the queries of latents that are the queries q of keys."""
    return jnp.einsum('BTNH,NHR->BTNR', q_BTNH, self._by_output(q_BTNH.dtype))

  def lift(self, y_BTNR: jax.Array) -> jax.Array:
    """y W: what each head has read, of latents it has mixed."""
    return jnp.einsum('BTNR,NHR->BTNH', y_BTNR, self._by_output(y_BTNR.dtype))

  def _by_output(self, dtype: jnp.dtype) -> jax.Array:
    kernel = self.kernel
    return (
      kernel.by_output(dtype)
      if isinstance(kernel, Stored)
      else jnp.moveaxis(kernel, 0, -1).astype(dtype)
    )
