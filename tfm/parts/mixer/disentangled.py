"""Disentangled attention: words ask for words, for distances, and are asked for by distances
(DeBERTa).
"""

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
from tfm.parts.term import Asked, Given, Term
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Distances:
  """norm(table) of 2 `span` vectors, one for each distance i - j from -span to span - 1.

  With `far` only the nearer half of them is told exactly; from there on to `far` distances share
  vectors, ever more of them (DeBERTa v2's logarithmic buckets)."""

  span: int = 32
  far: int | None = None
  norm: Norm | None = None

  def check(self) -> Iterator[str]:
    if self.span < 2:
      yield f'span={self.span} tells no distance from another. Expected at least 2.'
    if self.far is not None and self.far <= self.span // 2 + 1:
      yield f'far={self.far} leaves no distance to share vectors. Expected more than {self.span // 2 + 1}, or none.'

  def make(self, dims: Dims) -> nn.Module:
    """The module that returns the vectors."""
    return _Distances(self, dims)

  def rows(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """The row of the table for query i and key j of infos that broadcast, int32."""
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
    return (
      table_UD if self.spec.norm is None else self.spec.norm.make(d).copy(name='norm')(table_UD)
    )


@dataclasses.dataclass(frozen=True)
class Disentangled(Attention):
  """Attention whose scores have q_i . (t Wk)[i - j] (c2p) and k_j . (t Wq)[i - j] (p2c) added
  (arXiv:2006.03654).

  The vectors t are the stack's, the projections those of the layer's words or, with `own`, two
  more. Its authors divide scores by sqrt(3 H) where there are both `terms`: that is `scale`.

  *Cost*: 2 N H 2 span FLOPs a token for each term, and a look-up a pair.
  """

  distances: Distances = dataclasses.field(default=Distances(), kw_only=True)
  terms: tuple[str, ...] = dataclasses.field(default=('c2p', 'p2c'), kw_only=True)
  own: bool = dataclasses.field(default=False, kw_only=True)

  joined = ()  # the projections of words are asked of distances too

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.terms or set(self.terms) - {'c2p', 'p2c'}:
      yield f'terms={self.terms} are not those there are. Expected c2p, p2c or both.'

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
    found: list[Callable[..., tuple[Term, ...]]] = []
    if 'c2p' in s.terms:
      k_UKH = project_k(t_UD[None])[0]
      found.append(lambda q, k, q_info, k_info: (_asked(q, k_UKH, s.distances.rows),))
    if 'p2c' in s.terms:
      q_UNH = project_q(t_UD[None])[0]
      found.append(lambda q, k, q_info, k_info: (_told(k, q_UNH, s.distances.rows),))
    return tuple(found)


def _asked(
  q_BTNH: jax.Array, k_UKH: jax.Array, rows: Callable[[TokenInfo, TokenInfo], jax.Array]
) -> Asked:
  """Each query with the vector of its distance to each key."""
  B, T, N, H = q_BTNH.shape
  K = k_UKH.shape[1]
  of_BKGTU = jnp.einsum(
    'BTKGH,UKH->BKGTU', q_BTNH.reshape(B, T, K, N // K, H), k_UKH.astype(q_BTNH.dtype)
  )
  return Asked(of_BKGTU.reshape(B, N, T, -1), rows)


def _told(
  k_BSKH: jax.Array, q_UNH: jax.Array, rows: Callable[[TokenInfo, TokenInfo], jax.Array]
) -> Given:
  """Each key with the vector of each query's distance to it."""
  B, S, K, H = k_BSKH.shape
  U, N, _ = q_UNH.shape
  of_BKGSU = jnp.einsum(
    'BSKH,UKGH->BKGSU', k_BSKH, q_UNH.reshape(U, K, N // K, H).astype(k_BSKH.dtype)
  )
  return Given(of_BKGSU.reshape(B, N, S, U), rows)
