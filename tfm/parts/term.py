"""Additive terms of attention scores, as products or lookups that kernels evaluate per tile."""

from collections.abc import Callable
import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.tokeninfo import TokenInfo

#: A function of each (query, key) pair. Its arguments are token infos that broadcast.
Between = Callable[[TokenInfo, TokenInfo], jax.Array]


@struct.dataclass
class Product:
  """The term a_i . b_j, optionally only for the pairs (i, j) where `between` is true.

  Query head n uses head n // (N / K) of `b_BKSX`.

  Attributes:
    a_BNTX: a vector for each query and query head.
    b_BKSX: a vector for each key. K is 1, the number of key/value heads, or N.
    between: maps token infos that broadcast to a bool mask of pairs; None: all pairs.
    constant: whether b depends on no parameter, so that it needs no gradient.
  """

  a_BNTX: jax.Array
  b_BKSX: jax.Array
  between: Between | None = struct.field(pytree_node=False, default=None)
  constant: bool = struct.field(pytree_node=False, default=False)

  def total(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """Return the term of every pair, `[B, N, T, S]`."""
    B, N, T, X = self.a_BNTX.shape
    K = self.b_BKSX.shape[1]
    a_BKGTX = self.a_BNTX.reshape(B, K, N // K, T, X)
    b_BKSX = jax.lax.stop_gradient(self.b_BKSX) if self.constant else self.b_BKSX
    score_BNTS = jnp.einsum('BKGTX,BKSX->BKGTS', a_BKGTX, b_BKSX).reshape(B, N, T, -1)
    if self.between is None:
      return score_BNTS
    return jnp.where(self.between(q.rows(), k.columns())[:, None], score_BNTS, 0)


@struct.dataclass
class QueryLookup:
  """The term a_i[between(i, j)], a lookup in a vector of the query.

  Attributes:
    a_BNTX: X entries for each query and query head.
    between: maps token infos that broadcast to the index of each pair, int32.
  """

  a_BNTX: jax.Array
  between: Between = struct.field(pytree_node=False)

  def total(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """Return the term of every pair, `[B, N, T, S]`."""
    return jnp.take_along_axis(self.a_BNTX, self.between(q.rows(), k.columns())[:, None], axis=-1)


@struct.dataclass
class KeyLookup:
  """The term b_j[between(i, j)], a lookup in a vector of the key.

  Attributes:
    b_BKSX: X entries for each key and query head.
    between: maps token infos that broadcast to the index of each pair, int32.
  """

  b_BKSX: jax.Array
  between: Between = struct.field(pytree_node=False)

  def total(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """Return the term of every pair, `[B, N, T, S]`."""
    index_BTS = self.between(q.rows(), k.columns())
    term_BNST = jnp.take_along_axis(self.b_BKSX, index_BTS.swapaxes(1, 2)[:, None], axis=-1)
    return term_BNST.swapaxes(2, 3)


Term = Product | QueryLookup | KeyLookup


def scaled(term: Term, scale: float) -> Term:
  """Return the term multiplied by `scale`."""
  name = 'b_BKSX' if isinstance(term, KeyLookup) else 'a_BNTX'
  return dataclasses.replace(term, **{name: getattr(term, name) * scale})


def sum_terms(function: Callable[..., tuple[Term, ...]]) -> Callable[..., jax.Array]:
  """Return a function that computes the sum `[B, N, T, S]` of the terms of `function`.

  The last two arguments of `function` must be the token infos of queries and keys.
  """

  def total(*args) -> jax.Array:
    first, *rest = (term.total(*args[-2:]) for term in function(*args))
    return sum(rest, first)

  return total
