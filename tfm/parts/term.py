"""What is added to scores beside q k, told so that any kernel can find it tile by tile: products
and look-ups.
"""

from collections.abc import Callable
import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.tokeninfo import TokenInfo

#: Of infos that broadcast.
Between = Callable[[TokenInfo, TokenInfo], jax.Array]


@struct.dataclass
class Product:
  """a_i . b_j where `between` is true, if it is given; query head n meets head n // (N / K) of b.

  K is one, the number of kv heads or N. `constant` says that b is the same whatever is learned:
  nobody finds its gradient."""

  a_BNTX: jax.Array
  b_BKSX: jax.Array
  between: Between | None = struct.field(pytree_node=False, default=None)
  constant: bool = struct.field(pytree_node=False, default=False)

  def total(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """[B, N, T, S]."""
    B, N, T, X = self.a_BNTX.shape
    K = self.b_BKSX.shape[1]
    a_BKGTX = self.a_BNTX.reshape(B, K, N // K, T, X)
    b_BKSX = jax.lax.stop_gradient(self.b_BKSX) if self.constant else self.b_BKSX
    found_BNTS = jnp.einsum('BKGTX,BKSX->BKGTS', a_BKGTX, b_BKSX).reshape(B, N, T, -1)
    return (
      found_BNTS
      if self.between is None
      else jnp.where(self.between(q.rows(), k.columns())[:, None], found_BNTS, 0)
    )


@struct.dataclass
class Asked:
  """a_i[between(i, j)], a query's own numbers."""

  a_BNTX: jax.Array
  between: Between = struct.field(pytree_node=False)

  def total(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """[B, N, T, S]."""
    return jnp.take_along_axis(self.a_BNTX, self.between(q.rows(), k.columns())[:, None], axis=-1)


@struct.dataclass
class Given:
  """b_j[between(i, j)], a key's own numbers for each query head."""

  b_BKSX: jax.Array
  between: Between = struct.field(pytree_node=False)

  def total(self, q: TokenInfo, k: TokenInfo) -> jax.Array:
    """[B, N, T, S]."""
    rows_BTS = self.between(q.rows(), k.columns())
    found_BNST = jnp.take_along_axis(self.b_BKSX, rows_BTS.swapaxes(1, 2)[:, None], axis=-1)
    return found_BNST.swapaxes(2, 3)


Term = Product | Asked | Given


def scaled(term: Term, scale: float) -> Term:
  """`scale` times the term."""
  name = 'b_BKSX' if isinstance(term, Given) else 'a_BNTX'
  return dataclasses.replace(term, **{name: getattr(term, name) * scale})


def totals(function: Callable[..., tuple[Term, ...]]) -> Callable[..., jax.Array]:
  """The sum `[B, N, T, S]` of the terms that `function` tells of; the last two of what it is given
  are the infos.
  """

  def total(*given) -> jax.Array:
    first, *rest = (term.total(*given[-2:]) for term in function(*given))
    return sum(rest, first)

  return total
