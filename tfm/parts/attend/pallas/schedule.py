"""The inputs of the kernels. This module does not import Pallas, which is slow."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from tfm.parts.attend.pallas.tile_scores import TileScores


class Operands(NamedTuple):
  """The arrays of a kernel, with heads before tokens and tokens padded to whole tiles.

  Attributes:
    q_BNTH: queries, scaled.
    k_BKSH: keys.
    v_BKSH: values.
    q_info: the token info of queries, one int32 array per leaf, `[B, leaves, T]`. If dropout needs
      original indices of reordered tokens, they are a further leaf.
    k_info: the same for keys.
    floats: float scalars of mask, bias and terms per head, `[N, floats]`, the sink first.
    ints: int32 scalars of the same functions, `[N, ints]`.
    seeds: seeds of dropout, `[B, N]`.
    tables: lookup tables of mask and bias, `[N, chunks, 128]` each.
    q_terms: query vectors of terms, `[B, N, T, X]` each, X a multiple of 128.
    k_terms: key vectors of terms, `[B, 1 or K or N, S, X]` each.
  """

  q_BNTH: jax.Array
  k_BKSH: jax.Array
  v_BKSH: jax.Array
  q_info: jax.Array
  k_info: jax.Array
  floats: jax.Array
  ints: jax.Array
  seeds: jax.Array
  tables: tuple[jax.Array, ...]
  q_terms: tuple[jax.Array, ...]
  k_terms: tuple[jax.Array, ...]

  def gradient_heads(self, k_terms: Sequence[int]) -> int:
    """Return the number of heads in the gradients of keys and of `k_terms`."""
    return max([self.k_BKSH.shape[1], *(self.k_terms[i].shape[1] for i in k_terms)])


class Schedule(NamedTuple):
  """The static options of the kernels.

  Attributes:
    scores: computes the scores of a tile.
    size: the number of queries in a tile.
    width: the number of keys in a tile.
    q_dtypes: the dtypes of the leaves of the queries' token info.
    k_dtypes: the same for keys.
    interpret: whether to interpret the kernels; None: unless compiled for a TPU.
    constant: the indices of `k_terms` that need no gradient.
    pairs: the allowed (query, key) pairs of a head, as if all tokens were one document.
    products: the matrix products per tile of the kernel, for its estimate of FLOPs.
  """

  scores: TileScores
  size: int
  width: int
  q_dtypes: tuple[Any, ...]
  k_dtypes: tuple[Any, ...]
  interpret: bool | None
  constant: frozenset[int] = frozenset()
  pairs: int = 0
  products: int = 2
