"""The arrays of a kernel call: scalars and tables of functions, term vectors, token infos."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.parts.attend.base import Scores
from tfm.parts.attend.pallas.tile_scores import KernelTerm
from tfm.parts.attend.pallas.tiled import Tiled
from tfm.parts.term import Term, scaled
from tfm.parts.tokeninfo import TokenInfo

_LANES = 128


def collect_arrays(
  functions: Sequence[Tiled | None], sink_N: jax.Array | None, N: int
) -> tuple[Any, ...]:
  """Collect the arrays of all functions.

  Args:
    functions: bias, mask and the functions of the terms.
    sink_N: the sink logits, which become the first float, or None.
    N: the number of query heads.

  Returns:
    Floats `[N, floats]`, ints `[N, ints]`, tables `[N, chunks, 128]`, and the places of the arrays
    of each function (see `TileScores.places`).
  """
  floats = [] if sink_N is None else [sink_N.astype(jnp.float32)[:, None]]
  ints: list[jax.Array] = []
  tables: list[jax.Array] = []
  places = []
  for function in functions:
    own = []
    for array, table in zip(function.arrays, function.tables, strict=True) if function else ():
      array = jnp.broadcast_to(array, (N, array.shape[1]))
      if table:
        own.append(('table', len(tables)))
        tables.append(_chunks(array))
      elif array.dtype == jnp.float32:
        own.append(('float', len(floats)))
        floats.append(array)
      else:
        own.append(('int', len(ints)))
        ints.append(array)
    places.append(tuple(own))
  floats, ints = floats or [jnp.zeros((N, 1))], ints or [jnp.zeros((N, 1), jnp.int32)]
  return jnp.concatenate(floats, 1), jnp.concatenate(ints, 1), tuple(tables), tuple(places)


def _chunks(array: jax.Array) -> jax.Array:
  """Return tables `[N, U]` in chunks of 128, `[N, chunks, 128]`."""
  return jnp.pad(array, [(0, 0), (0, -array.shape[1] % _LANES)]).reshape(array.shape[0], -1, _LANES)


def scaled_terms(
  scores: Scores, q_BTNH: jax.Array, k_BSKH: jax.Array, q: TokenInfo, k: TokenInfo
) -> tuple[Any, Any]:
  """Return the terms before the cap, multiplied by the scale, and the terms after it.

  Args:
    scores: how scores are formed.
    q_BTNH: queries.
    k_BSKH: keys.
    q: token info of the queries.
    k: token info of the keys.

  Returns:
    Two lists of terms.
  """
  before_cap: list[Term] = []
  for content in scores.contents:
    before_cap += [scaled(term, scores.scale) for term in content(q_BTNH, k_BSKH, q, k)]
  return before_cap, [product(q, k) for product in scores.products]


def on_tokens(
  function: Callable[[TokenInfo, TokenInfo], jax.Array],
) -> Callable[[TokenInfo, TokenInfo], jax.Array]:
  """Adapt a function of infos that broadcast to infos `[B, T]` and `[B, S]`."""
  return lambda q, k: function(q.rows(), k.columns())


def _vectors(term: Term) -> tuple[jax.Array | None, jax.Array | None]:
  """Return the query vectors `[B, N, T, X]` and key vectors `[B, K, S, X]` of a term."""
  return getattr(term, 'a_BNTX', None), getattr(term, 'b_BKSX', None)


def term_bytes(terms: Sequence[Term], dtype: Any) -> int:
  """Return the bytes of all term vectors of a query and a key, for one head."""
  each = [x.shape[-1] for term in terms for x in _vectors(term) if x is not None]
  return sum(-(-X // _LANES) * _LANES for X in each) * jnp.dtype(dtype).itemsize


class TermVectors(NamedTuple):
  """The term vectors of a kernel call.

  Attributes:
    q_terms: padded query vectors.
    k_terms: padded key vectors.
    constant: the indices of `k_terms` without a gradient.
    terms: the terms.
  """

  q_terms: tuple[jax.Array, ...]
  k_terms: tuple[jax.Array, ...]
  constant: frozenset[int]
  terms: tuple[KernelTerm, ...]


def term_vectors(
  terms: Sequence[Term], functions: Sequence[Tiled | None], dtype: Any, size: int, width: int
) -> TermVectors:
  """Return the term vectors, padded to whole tiles and in the dtype of the queries.

  Args:
    terms: the terms.
    functions: their functions, converted to run on tiles.
    dtype: the dtype of the queries.
    size: the number of queries in a tile.
    width: the number of keys in a tile.

  Returns:
    The vectors.
  """
  q_terms: list[jax.Array] = []
  k_terms: list[jax.Array] = []
  constant, kernel_terms = set(), []

  def put(x: jax.Array | None, arrays: list[jax.Array], tokens: int) -> int | None:
    if x is None:
      return None
    T, X = x.shape[2:]
    arrays.append(jnp.pad(x.astype(dtype), [(0, 0), (0, 0), (0, -T % tokens), (0, -X % _LANES)]))
    return len(arrays) - 1

  for i, (term, function) in enumerate(zip(terms, functions, strict=True)):
    q_vectors, k_vectors = _vectors(term)
    places = put(q_vectors, q_terms, size), put(k_vectors, k_terms, width)
    kernel_terms.append(KernelTerm(*places, function, i + 2))
    if getattr(term, 'constant', False):
      constant.add(len(k_terms) - 1)
  return TermVectors(tuple(q_terms), tuple(k_terms), frozenset(constant), tuple(kernel_terms))


def padded(tree: Any, size: int) -> Any:
  """Return arrays `[B, T, ...]` padded to whole tiles with zeros (segment 0)."""
  return jax.tree.map(
    lambda a: jnp.pad(a, [(0, 0), (0, -a.shape[1] % size), *[(0, 0)] * (a.ndim - 2)]), tree
  )


def stacked_leaves(info: TokenInfo, place_BT: jax.Array | None) -> jax.Array:
  """Return the leaves of a token info, and the original indices of reordered tokens."""
  leaves = [a.astype(jnp.int32) for a in jax.tree.leaves(info)]
  if place_BT is not None:
    T = place_BT.shape[1]
    leaves.append(jnp.pad(place_BT, [(0, 0), (0, leaves[0].shape[1] - T)], constant_values=T))
  return jnp.stack(leaves, 1)


def leaf_dtypes(info: TokenInfo) -> tuple[Any, ...]:
  """Return the dtypes of the leaves of a token info."""
  return tuple(a.dtype for a in jax.tree.leaves(info))
