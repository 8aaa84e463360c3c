"""How a mesh splits the rows and heads of a kernel, which a compiler cannot split."""

import math
from typing import NamedTuple

import jax

from tfm.core.axes import mesh_axes


class Split(NamedTuple):
  """The mesh axes that rows, query heads and kv heads are split over; () for none.

  Fewer kv heads than devices are on all of them, and `shared` says how many there are.
  """

  rows: tuple[str, ...]
  heads: tuple[str, ...]
  kv_heads: tuple[str, ...]
  shared: int | None = None

  def own(self, x_BKSH: jax.Array) -> jax.Array:
    """On a device, the keys or values of its kv heads: where they are shared, the one that its
    query heads read.
    """
    if self.shared is None:
      return x_BKSH
    mine = jax.lax.axis_index(self.heads) * self.shared // ways(self.heads)
    return jax.lax.dynamic_slice_in_dim(x_BKSH, mine, 1, 1)


def split(B: int, N: int, K: int) -> Split:
  """How the rules in force split B rows, N query heads and K kv heads, so that each query head
  meets its kv head.
  """
  (rows, heads), (kv_heads,) = mesh_axes('BN', (B, N)), mesh_axes('K', (K,))
  if heads == kv_heads:
    return Split(rows, heads, kv_heads)
  return Split(rows, (), ()) if ways(heads) % K else Split(rows, heads, (), K)


def ways(names: tuple[str, ...]) -> int:
  """Over how many devices these axes of the mesh split."""
  return math.prod(jax.sharding.get_abstract_mesh().shape[n] for n in names)
