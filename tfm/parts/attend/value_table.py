"""Position vectors that attention adds to values."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class ValueTable:
  """A vector per (query, key) pair to add to the value: y_i = sum_j p_ij (v_j + table[entry_ij]).

  All heads share the vectors. The probabilities are summed per table entry first, so no array of
  queries by keys by H is made. The cost is an addition per pair and head, and 2 U H FLOPs per query
  and head.

  Attributes:
    entries: maps token infos `[B, T]` and `[B, S]` to table entries, int32 `[B or 1, T, S]`. It
      must not depend on parameters.
    table_UH: U vectors of the size of a value.
  """

  entries: Callable[[TokenInfo, TokenInfo], jax.Array]
  table_UH: jax.Array

  def padded(self, n: int) -> 'ValueTable':
    """Return the same vectors with `n` zeros before each, for wider values."""
    return dataclasses.replace(self, table_UH=jnp.pad(self.table_UH, [(0, 0), (n, 0)]))


def weighted_vectors(
  p_BKGTS: jax.Array, entries: Sequence[jax.Array], tables: Sequence[jax.Array], dtype: Any
) -> jax.Array:
  """Return sum_j p_ij table[entry_ij], summed over all tables.

  Args:
    p_BKGTS: attention probabilities, or unnormalised exponentials.
    entries: the table entries of the pairs, `[B or 1, T, S]` for each table.
    tables: `[U, H]` each.
    dtype: the dtype in which the summed probabilities and tables are multiplied.

  Returns:
    `[B, K, G, T, H]` in the dtype of p; the scalar 0 without tables.
  """
  B, K, G, T, S = p_BKGTS.shape
  total = jnp.zeros((), p_BKGTS.dtype)
  for entry_BTS, table_UH in zip(entries, tables, strict=True):
    p_BNTU = summed(p_BKGTS.reshape(B, K * G, T, S), entry_BTS, len(table_UH)).astype(dtype)
    y_BNTH = jnp.einsum(
      'BNTU,UH->BNTH', p_BNTU, table_UH.astype(dtype), preferred_element_type=p_BKGTS.dtype
    )
    total = total + y_BNTH.reshape(B, K, G, T, -1)
  return total


def summed(p_BNTS: jax.Array, entry_BTS: jax.Array, U: int) -> jax.Array:
  """Return p_BNTU, the sum of p over the keys of each table entry.

  Args:
    p_BNTS: attention probabilities.
    entry_BTS: the table entry of each pair.
    U: the number of table entries.

  Returns:
    An array `[B, N, T, U]`.
  """
  # The sum is the transpose of a lookup.
  look_up = lambda p_BNTU: jnp.take_along_axis(
    p_BNTU, entry_BTS[:, None], -1, mode='promise_in_bounds'
  )
  shape = jax.ShapeDtypeStruct((*p_BNTS.shape[:3], U), p_BNTS.dtype)
  return jax.linear_transpose(look_up, shape)(p_BNTS)[0]
