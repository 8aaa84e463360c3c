"""What is added to values by the distance over which they are read."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Added:
  """The vector `table_UH[rows(q, k)]` of each pair of infos, the same for all heads: y_i = sum_j
  p_ij (v_j + it).

  `rows` gives int32 `[B or 1, T, S]` of infos `[B, T]` and `[B, S]`; of parameters it must know
  nothing. What is as wide as the values are is summed by row first, so no array is of queries by
  keys by H.

  *Cost*: an addition a pair and head, 2 U H FLOPs a query and head.
  """

  rows: Callable[[TokenInfo, TokenInfo], jax.Array]
  table_UH: jax.Array

  def behind(self, n: int) -> 'Added':
    """The same for values with n numbers before those that it is added to."""
    return dataclasses.replace(self, table_UH=jnp.pad(self.table_UH, [(0, 0), (n, 0)]))


def read(
  p_BKGTS: jax.Array, rows: Sequence[jax.Array], tables: Sequence[jax.Array], dtype: Any
) -> jax.Array:
  """sum_j p_ij table[rows_ij] of all tables, in the dtype of p, `[B, K, G, T, H]`; 0 if there are
  none.

  `rows` are `[B or 1, T, S]`; sums of p and tables are multiplied as numbers of `dtype`.
  """
  B, K, G, T, S = p_BKGTS.shape
  more = jnp.zeros((), p_BKGTS.dtype)
  for rows_BTS, table_UH in zip(rows, tables, strict=True):
    p_BNTU = summed(p_BKGTS.reshape(B, K * G, T, S), rows_BTS, len(table_UH)).astype(dtype)
    y_BNTH = jnp.einsum(
      'BNTU,UH->BNTH', p_BNTU, table_UH.astype(dtype), preferred_element_type=p_BKGTS.dtype
    )
    more = more + y_BNTH.reshape(B, K, G, T, -1)
  return more


def summed(p_BNTS: jax.Array, rows_BTS: jax.Array, U: int) -> jax.Array:
  """p_BNTU, the sum of p over the keys of each row."""
  look_up = lambda p_BNTU: jnp.take_along_axis(
    p_BNTU, rows_BTS[:, None], -1, mode='promise_in_bounds'
  )
  return jax.linear_transpose(look_up, jax.ShapeDtypeStruct((*p_BNTS.shape[:3], U), p_BNTS.dtype))(
    p_BNTS
  )[0]
