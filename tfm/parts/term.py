"""What is added to scores beside q k, told so that any kernel can find it tile by tile: products and look-ups."""

from collections.abc import Callable

from flax import struct
import jax
import jax.numpy as jnp

from tfm.parts.site import Site


@struct.dataclass
class Product:
  """a_i . b_j, query head n with head n // (N / M) of b, M one, the kv heads or all; 0 where `where`, if given, is not.

  `where(q, k)` is of sites that broadcast.
  """

  a_BNTX: jax.Array
  b_BMSX: jax.Array
  where: Callable[[Site, Site], jax.Array] | None = struct.field(pytree_node=False, default=None)

  def total(self, q: Site, k: Site) -> jax.Array:
    """[B, N, T, S]."""
    B, N, T, X = self.a_BNTX.shape
    M = self.b_BMSX.shape[1]
    a_BMGTX = self.a_BNTX.reshape(B, M, N // M, T, X)
    found_BNTS = jnp.einsum('BMGTX,BMSX->BMGTS', a_BMGTX, self.b_BMSX).reshape(B, N, T, -1)
    return found_BNTS if self.where is None else jnp.where(self.where(q.rows(), k.columns())[:, None], found_BNTS, 0)


@struct.dataclass
class Asked:
  """a_i[row(i, j)], a query's own numbers; `row(q, k)` is of sites that broadcast."""

  a_BNTU: jax.Array
  row: Callable[[Site, Site], jax.Array] = struct.field(pytree_node=False)

  def total(self, q: Site, k: Site) -> jax.Array:
    """[B, N, T, S]."""
    return jnp.take_along_axis(self.a_BNTU, self.row(q.rows(), k.columns())[:, None], axis=-1)


@struct.dataclass
class Given:
  """b_j[row(i, j)], a key's own numbers for each query head; `row(q, k)` is of sites that broadcast."""

  b_BNSU: jax.Array
  row: Callable[[Site, Site], jax.Array] = struct.field(pytree_node=False)

  def total(self, q: Site, k: Site) -> jax.Array:
    """[B, N, T, S]."""
    rows_BTS = self.row(q.rows(), k.columns())
    found_BNST = jnp.take_along_axis(self.b_BNSU, rows_BTS.swapaxes(1, 2)[:, None], axis=-1)
    return found_BNST.swapaxes(2, 3)


Term = Product | Asked | Given


def totals(function: Callable[..., tuple[Term, ...]]) -> Callable[..., jax.Array]:
  """The sum `[B, N, T, S]` of the terms that `function` tells of; the last two of what it is given are the sites."""

  def total(*given) -> jax.Array:
    first, *rest = (term.total(*given[-2:]) for term in function(*given))
    return sum(rest, first)

  return total
