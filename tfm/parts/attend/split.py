"""Sharding of batch, heads and sequences for kernels that a compiler cannot partition."""

from typing import NamedTuple

import jax

from tfm.core.axes import device_count, mesh_axes


class Split(NamedTuple):
  """The mesh axes that batch and heads are sharded over.

  Attributes:
    rows: the mesh axes of the batch; () for none.
    heads: the mesh axes of query heads.
    kv_heads: the mesh axes of key/value heads.
    shared: the number of key/value heads if there are fewer than devices; then every device has all
      of them.
  """

  rows: tuple[str, ...]
  heads: tuple[str, ...]
  kv_heads: tuple[str, ...]
  shared: int | None = None

  def local(self, x_BKSH: jax.Array) -> jax.Array:
    """Return the key/value heads that the query heads of this device use.

    If all devices have all key/value heads, this selects a single head.
    """
    if self.shared is None:
      return x_BKSH
    mine = jax.lax.axis_index(self.heads) * self.shared // device_count(self.heads)
    return jax.lax.dynamic_slice_in_dim(x_BKSH, mine, 1, 1)


def split(B: int, N: int, K: int) -> Split:
  """Return the sharding of batch and heads under the active sharding rules.

  Args:
    B: the batch size.
    N: the number of query heads.
    K: the number of key/value heads.

  Returns:
    A sharding in which every query head is on a device with its key/value head.
  """
  (rows, heads), (kv_heads,) = mesh_axes('BN', (B, N)), mesh_axes('K', (K,))
  if heads == kv_heads:
    return Split(rows, heads, kv_heads)
  return Split(rows, (), ()) if device_count(heads) % K else Split(rows, heads, (), K)


def sequence_axes(T: int) -> tuple[str, ...]:
  """Return the mesh axes that split a sequence of T tokens under the active sharding rules."""
  return mesh_axes('T', (T,))[0]
