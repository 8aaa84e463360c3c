"""Multi-head latent attention (MLA)."""

from collections.abc import Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.attend.base import Scores
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense, weight
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.segments import Segments
from tfm.parts.mixer.attention import make_scores
from tfm.parts.mixer.base import Cache
from tfm.parts.mixer.masked import MaskedMixer, RelativePositions, relative_positions
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.quantize.base import Quantize
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.parts.state import Slot
from tfm.parts.stored import Stored
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class MLA(MaskedMixer):
  """Attention with one cached latent per token (MLA, DeepSeek-V2, arXiv:2405.04434).

  The output is softmax((q_n k_n + q_r k_r) scale) v Wo, with the latent c = norm(x Wc). In each
  head, k_n = c Wk and v = c Wv. All heads share the rotated key k_r = rotate(x Wr). The cache holds
  only (c, k_r), `kv_rank` + `rope_dim` numbers per token.

  Since q_n k_n = (q_n Wk^T) c and p v = (p c) Wv for probabilities p, decoding can attend to the
  latents directly. They are one key head for all query heads (absorbed). MLA does so where
  it is cheaper than making the keys and values of all cached tokens (expanded).

  Attributes:
    heads: N, the number of heads.
    q_rank: the size of the normalised latent of queries; None: queries are projected from x
      (V2-Lite).
    kv_rank: the size of the latent c.
    nope_dim: the size of the part of a head without position.
    rope_dim: the size of the rotated part of a head.
    v_dim: the size of a value.
    relative: the relative position of q_r and k_r. DeepSeek uses RoPE with the layout
      'interleaved'.
    mask: the attention mask.
    norm: the norm of latents.
    bias: the projections that have a bias: 'q' (queries or their latent), 'c' (latent and shared
      key), 'o'.
    scale: the factor of scores; None: (nope_dim + rope_dim) ** -0.5, times the `score_scale` of the
      relative position (YaRN's `mscale_all`).
    cap: as in `Heads`.
    sink: as in `Heads`.
    dropout: the dropout rate of attention probabilities.
  """

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
      yield f'q_rank={self.q_rank} is not a size. Expected at least 1, or none for no latent.'
    if odd := sorted(set(self.bias) - set('qco')):
      yield f'bias={self.bias!r} has unknown letters {", ".join(odd)}. Expected letters of qco.'

  def fits(self, d_model):
    yield from (f'relative: {m}' for m in self.relative.fits(self.rope_dim))

  @property
  def qk_dim(self) -> int:
    """The size of a query or key head, both parts."""
    return self.nope_dim + self.rope_dim

  @property
  def latent_dim(self) -> int:
    """The number of cached entries per token."""
    return self.kv_rank + self.rope_dim

  def relative_dim(self, d_model):
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
    """Return the FLOPs of a decoded token in the absorbed form.

    Compared with `flops`, the projections cost the same and each pair costs more.
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
    """Return whether T queries of S cached tokens cost fewer FLOPs in the absorbed form."""
    up = self.kv_rank * (self.nope_dim + self.v_dim)
    return T * up + T * S * 2 * self.latent_dim < S * up + T * S * (self.qk_dim + self.v_dim)


class _MLA(Module):
  spec: MLA
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, D, N = self.spec, self.dims.d_model, self.spec.heads
    dims = self.dims.replace(heads=N, head_dim=s.qk_dim, causal=s.mask.causal)
    # Relative positions apply only to the rotated part of a head.
    relative = relative_positions(s, dims.replace(head_dim=s.rope_dim, value_dim=s.v_dim), ctx)
    q_BTNH = self._queries(dims, x_BTD, relative, ctx.info)
    new = {'k': self._latents(dims, x_BTD, relative, ctx.info)}
    cached, k_info, cache = dims.run.cache.extend(cache, new, ctx.info, ctx.slot, s.lookback)
    up_k = _Up(s.kv_rank, N, s.nope_dim, dims, name='k')
    up_v = _Up(s.kv_rank, N, s.v_dim, dims, name='v')
    absorb = cache is not None and s.absorbs(x_BTD.shape[1], cached['k'].shape[1])
    q, k, v = (self._absorbed if absorb else self._expanded)(q_BTNH, cached['k'], up_k, up_v)
    scores = self._scores(ctx, relative, s.kv_rank if absorb else s.nope_dim)
    if absorb and scores.value_tables:
      # Position vectors of values are not latents: append them as further entries.
      v = jnp.pad(v, [(0, 0)] * 3 + [(0, s.v_dim)])
      tables = tuple(table.padded(s.latent_dim) for table in scores.value_tables)
      scores = dataclasses.replace(scores, value_tables=tables)
    y_BTNH = dims.run.attend(q, k, v, ctx.info, k_info, scores, dims.run.precision.reduce)
    if absorb:
      vectors, y_BTNH = y_BTNH[..., s.latent_dim :], up_v.lift(y_BTNH[..., : s.kv_rank])
      y_BTNH = y_BTNH + vectors if scores.value_tables else y_BTNH
    return Dense('NHD', (N, s.v_dim, D), dims, n_in=2, bias='o' in s.bias, name='o')(y_BTNH), cache

  def _scores(self, ctx: Ctx, relative: RelativePositions, plain: int) -> Scores:
    """Return how scores are formed; the first `plain` entries of a head have no position."""
    s = self.spec
    of_rotated = lambda f: lambda q, k, *infos: f(q[..., plain:], k[..., plain:], *infos)
    contents = tuple(map(of_rotated, relative.contents))
    terms = relative.biases(s.heads), contents, relative.products, relative.value_tables
    scores = make_scores(self, s, s.qk_dim, ctx, s.mask & Segments(), *terms)
    if s.scale is not None:
      return scores
    return dataclasses.replace(scores, scale=scores.scale * relative.score_scale)

  def _queries(
    self, dims: Dims, x_BTD: jax.Array, relative: RelativePositions, info: TokenInfo
  ) -> jax.Array:
    """Return [q_n, rotated q_r] of every head."""
    s, bias, D = self.spec, 'q' in self.spec.bias, dims.d_model
    if s.q_rank is None:
      q_BTNH = Dense('DNH', (D, s.heads, s.qk_dim), dims, bias=bias, name='q')(x_BTD)
    else:
      q_BTR = Dense('DR', (D, s.q_rank), dims, bias=bias, name='q_latent')(x_BTD)
      q_BTR = s.norm.make(dims, 'R').copy(name='q_norm')(q_BTR)
      q_BTNH = Dense('RNH', (s.q_rank, s.heads, s.qk_dim), dims, name='q')(q_BTR)
    plain, rotated = jnp.split(q_BTNH, [s.nope_dim], -1)
    return jnp.concatenate([plain, relative.queries(rotated, info)], -1)

  def _latents(
    self, dims: Dims, x_BTD: jax.Array, relative: RelativePositions, info: TokenInfo
  ) -> jax.Array:
    """Return [c, rotated k_r] of every token, as one key head."""
    s, bias, D = self.spec, 'c' in self.spec.bias, dims.d_model
    c_BTR = Dense('DR', (D, s.kv_rank), dims, bias=bias, name='c')(x_BTD)
    c_BTR = s.norm.make(dims, 'R').copy(name='c_norm')(c_BTR)
    k_BTKH = Dense('DH', (D, s.rope_dim), dims, bias=bias, name='k_rope')(x_BTD)[:, :, None]
    return jnp.concatenate([c_BTR[:, :, None], relative.rotate(k_BTKH, info)], -1)

  def _expanded(self, q_BTNH, latent_BSKd, up_k, up_v):
    """Return queries, keys and values of every head."""
    c_BSKR, k_rope = jnp.split(latent_BSKd, [self.spec.kv_rank], -1)
    c_BSR, N = c_BSKR[:, :, 0], self.spec.heads
    k_rope = jnp.broadcast_to(k_rope, (*k_rope.shape[:2], N, k_rope.shape[-1]))
    return q_BTNH, jnp.concatenate([up_k(c_BSR), k_rope], -1), up_v(c_BSR)

  def _absorbed(self, q_BTNH, latent_BSKd, up_k, up_v):
    """Return queries in latent space, and the latents as keys and values of one head."""
    plain, rotated = jnp.split(q_BTNH, [self.spec.nope_dim], -1)
    # Values are the first `kv_rank` entries of a key. Mixing whole keys is cheaper than slicing,
    # which would copy the cache.
    return jnp.concatenate([up_k.absorb(plain), rotated], -1), latent_BSKd, latent_BSKd


class _Up(Module):
  """The projection from latents to heads, and its transpose in latent space."""

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
    """Return c W, the keys or values of every head."""
    kernel = self.kernel
    if isinstance(kernel, Stored):
      return kernel.contract(c_BSR)
    quantize = self.dims.run.quantize
    found = quantize if quantize.wraps(self.name or '') else Quantize()
    return found.contract(c_BSR, kernel.astype(c_BSR.dtype))

  def absorb(self, q_BTNH: jax.Array) -> jax.Array:
    """Return q W^T, the queries in latent space."""
    return jnp.einsum('BTNH,NHR->BTNR', q_BTNH, self._by_output(q_BTNH.dtype))

  def lift(self, y_BTNR: jax.Array) -> jax.Array:
    """Return y W, the output of each head, given its mixture of latents."""
    return jnp.einsum('BTNR,NHR->BTNH', y_BTNR, self._by_output(y_BTNR.dtype))

  def _by_output(self, dtype: jnp.dtype) -> jax.Array:
    kernel = self.kernel
    if isinstance(kernel, Stored):
      return kernel.by_output(dtype)
    return jnp.moveaxis(kernel, 0, -1).astype(dtype)
