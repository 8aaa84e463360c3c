"""DeBERTa's disentangled attention: content-to-position and position-to-content scores."""

from collections.abc import Callable, Iterator
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core.axes import sharded
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.dense import Dense
from tfm.parts.mixer.attention import Attention, _Attention
from tfm.parts.norm.base import Norm
from tfm.parts.term import KeyLookup, QueryLookup, Term
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Distances:
  """Learned vectors of 2 `span` distances i - j, from -span to span - 1, with an optional norm.

  Attributes:
    span: half of the number of vectors.
    far: if given, the nearer half of the distances is exact, and distances from there to `far`
      share vectors in logarithmic buckets (DeBERTa v2). None: all are exact.
    norm: a norm of the vectors, or None.
  """

  span: int = 32
  far: int | None = None
  norm: Norm | None = None

  def check(self) -> Iterator[str]:
    """Yield a sentence for each invalid field."""
    if self.span < 2:
      yield f'span={self.span} is too small. Expected at least 2.'
    if self.far is not None and self.far <= self.span // 2 + 1:
      yield (
        f'far={self.far} leaves no logarithmic buckets. '
        f'Expected more than {self.span // 2 + 1}, or none.'
      )

  def make(self, dims: Dims) -> nn.Module:
    """Return the module that returns the vectors, `[2 span, D]`."""
    return _Distances(self, dims)

  def rows(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """Return the vector index for query i and key j, int32, for infos that broadcast."""
    gap_BTS = q.positions - k.positions
    if self.far is not None:
      near = self.span // 2
      size_BTS = jnp.abs(gap_BTS)
      ratio_BTS = jnp.maximum(size_BTS, near).astype(jnp.float32) / near
      log_BTS = jnp.log(ratio_BTS) / jnp.log(jnp.float32((self.far - 1) / near))
      shared_BTS = jnp.ceil(log_BTS * (near - 1)).astype(jnp.int32) + near
      gap_BTS = jnp.where(size_BTS <= near, gap_BTS, jnp.sign(gap_BTS) * shared_BTS)
    return jnp.clip(gap_BTS + self.span, 0, 2 * self.span - 1)


class _Distances(Module):
  spec: Distances
  dims: Dims

  @nn.compact
  def __call__(self) -> jax.Array:
    d, shape = self.dims, (2 * self.spec.span, self.dims.d_model)
    init = sharded(d.init.weight('relative', *shape, d), 'UD')
    table_UD = self.param('table', init, shape, d.run.precision.dtype('param')).astype(
      d.run.precision.dtype('compute')
    )
    if self.spec.norm is None:
      return table_UD
    return self.spec.norm.make(d).copy(name='norm')(table_UD)


@dataclasses.dataclass(frozen=True)
class Disentangled(Attention):
  """Attention with content-to-position and position-to-content scores (DeBERTa, arXiv:2006.03654).

  Scores also have q_i . (t Wk)[i - j] (c2p) and k_j . (t Wq)[i - j] (p2c). All layers share the
  vectors t. DeBERTa divides scores by sqrt(3 H) with both terms: set `scale`. Each term costs 4 N H
  span FLOPs per token, and a lookup per pair.

  Attributes:
    distances: the vectors t.
    terms: 'c2p', 'p2c' or both.
    own: whether t has its own projections, instead of Wq and Wk of the layer.
  """

  distances: Distances = dataclasses.field(default=Distances(), kw_only=True)
  terms: tuple[str, ...] = dataclasses.field(default=('c2p', 'p2c'), kw_only=True)
  own: bool = dataclasses.field(default=False, kw_only=True)

  joined = ()  # the projections also apply to distances

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.terms or set(self.terms) - {'c2p', 'p2c'}:
      yield f'terms={self.terms} is unknown. Expected c2p, p2c or both.'

  @property
  def common(self):
    return self.distances

  def make(self, dims):
    return _Disentangled(self, dims)

  def flops(self, d_model, pairs):
    N, _, H = self.sizes(d_model)
    return super().flops(d_model, pairs) + len(self.terms) * 4 * N * H * self.distances.span


class _Disentangled(_Attention):
  spec: Disentangled

  def contents(self, project_q: Dense, project_k: Dense, dims: Dims, ctx: Ctx) -> tuple:
    s, D = self.spec, dims.d_model
    N, K, H = s.sizes(D)
    if s.own:
      project_q = Dense('DNH', (D, N, H), dims, bias='q' in s.bias, name='distance_q')
      project_k = Dense('DKH', (D, K, H), dims, bias='k' in s.bias, name='distance_k')
    t_UD = jnp.zeros((2 * s.distances.span, D)) if ctx.common is None else ctx.common
    terms: list[Callable[..., tuple[Term, ...]]] = []
    if 'c2p' in s.terms:
      k_UKH = project_k(t_UD[None])[0]
      terms.append(lambda q, k, q_info, k_info: (_content_to_position(q, k_UKH, s.distances.rows),))
    if 'p2c' in s.terms:
      q_UNH = project_q(t_UD[None])[0]
      terms.append(lambda q, k, q_info, k_info: (_position_to_content(k, q_UNH, s.distances.rows),))
    return tuple(terms)


def _content_to_position(
  q_BTNH: jax.Array, k_UKH: jax.Array, rows: Callable[[TokenInfo, TokenInfo], jax.Array]
) -> QueryLookup:
  """Return the c2p term: each query times the vector of its distance to each key."""
  B, T, N, H = q_BTNH.shape
  K = k_UKH.shape[1]
  of_BKGTU = jnp.einsum(
    'BTKGH,UKH->BKGTU', q_BTNH.reshape(B, T, K, N // K, H), k_UKH.astype(q_BTNH.dtype)
  )
  return QueryLookup(of_BKGTU.reshape(B, N, T, -1), rows)


def _position_to_content(
  k_BSKH: jax.Array, q_UNH: jax.Array, rows: Callable[[TokenInfo, TokenInfo], jax.Array]
) -> KeyLookup:
  """Return the p2c term: each key times the vector of the distance of each query to it."""
  B, S, K, H = k_BSKH.shape
  U, N, _ = q_UNH.shape
  of_BKGSU = jnp.einsum(
    'BSKH,UKGH->BKGSU', k_BSKH, q_UNH.reshape(U, K, N // K, H).astype(k_BSKH.dtype)
  )
  return KeyLookup(of_BKGSU.reshape(B, N, S, U), rows)
