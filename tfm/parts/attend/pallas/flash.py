"""The attention kernel for TPUs: masks, biases and dropout are computed per tile, on the chip."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.core.axes import device_count, mesh_axes
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.attend.pallas.arrays import (
  collect_arrays,
  leaf_dtypes,
  on_tokens,
  padded,
  scaled_terms,
  stacked_leaves,
  term_bytes,
  term_vectors,
)
from tfm.parts.attend.pallas.differentiable import flash_attention, over_mesh
from tfm.parts.attend.pallas.schedule import Operands, Schedule
from tfm.parts.attend.pallas.tile_scores import TileScores
from tfm.parts.attend.pallas.tiled import Tiled, Unsupported, tiled
from tfm.parts.attend.pallas.visits import tile_kinds
from tfm.parts.attend.views import attend_views, useful_views
from tfm.parts.mask.base import Mask, View
from tfm.parts.term import Term
from tfm.parts.tokeninfo import TokenInfo

_LANES = 128
#: The maximum head size.
_WIDEST = 256
#: The maximum bytes of term vectors in a tile. Tiles shrink to fit; a tile of 128 may have twice
#: as much.
_TERM_BYTES = 2**19
#: The maximum number of entries in scalar memory. A TPU has 2^18.
_SCALARS = 3 * 2**16


@dataclasses.dataclass(frozen=True)
class Pallas(Attend):
  """Fused attention for TPUs with any mask and bias (arXiv:2307.08691).

  There is one kernel forward and two backward. Mask and biases are evaluated in the kernel, on
  tiles of `queries` x `keys`. Masked-out tiles are neither computed nor fetched; tiles with all
  pairs allowed are not masked. Key/value heads are not repeated. Batch and heads may be sharded
  over a mesh. Long sequences are sorted into the order of `Mask.views`, with a kernel call per
  view. See the page of `tfm.parts.attend.pallas` for the design.

  A pair in a computed tile costs 4 N H FLOPs forward and 14 N H backward. Memory is B N (T H + 3 T)
  numbers; scores stay on the chip. A term (`tfm.parts.term`) stores X numbers per query or key and
  head. As a product it costs 2 N X FLOPs per pair and 8 N X backward; with keys per query head
  their gradients take B N S H numbers. Tables are looked up 128 entries at a time. Their gradients
  are summed entry by entry, so the backward pass of a lookup costs many times its forward pass. For
  biases that depend only on the distance of consecutive tokens, diagonals are summed first, which
  is cheaper.

  Attributes:
    queries: the number of queries in a tile.
    keys: the number of keys in a tile.
    interpret: True interprets the kernels in plain JAX, False compiles them, None compiles them on
      TPUs only.

  Note:
    The softmax is float32 whatever the precision's `reduce`. Term vectors have the dtype of the
    queries.
  """

  queries: int = 512
  keys: int = 512
  interpret: bool | None = None

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1:
      yield f'queries={self.queries}, keys={self.keys} must be positive. Expected at least 1.'
    elif not self.interpret and (self.queries % _LANES or self.keys % _LANES):
      yield (
        f'queries={self.queries}, keys={self.keys} are not tile sizes of a TPU. '
        f'Expected multiples of {_LANES}.'
      )

  def loses(self, platform, B, N, T, S):
    if platform == 'tpu':
      return None
    return f'its kernels are for TPUs, and this is a {platform}'

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    try:
      terms = jax.eval_shape(functools.partial(scaled_terms, scores), q_BTNH, k_BSKH, q, k)
      for view in self._views(q_BTNH, scores):
        own = dataclasses.replace(scores, mask=view.mask)
        self._functions(q_BTNH, k_BSKH, v_BSKH, q, k, own, terms[0] + terms[1])
    except Unsupported as reason:
      return str(reason)
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    return attend_views(
      self._summed, self._views(q_BTNH, scores), q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce
    )

  def _views(self, q_BTNH: jax.Array, scores: Scores) -> tuple[View, ...]:
    return useful_views(scores.mask, q_BTNH.shape[1] / self.queries)

  def _summed(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    """Return y_BTNH and the log-sum-exp lse_BTN of one view."""
    before_cap, after_cap = scaled_terms(scores, q_BTNH, k_BSKH, q, k)
    terms = before_cap + after_cap
    try:
      mask, bias, functions = self._functions(q_BTNH, k_BSKH, v_BSKH, q, k, scores, terms)
    except Unsupported as reason:
      raise errors.UserError(
        f'attend=pallas: {reason}. Expected attend=blockwise, which supports all scores.'
      ) from None
    T, N, S = q_BTNH.shape[1], q_BTNH.shape[2], k_BSKH.shape[1]
    size, width = self._sizes(T, S, term_bytes(terms, q_BTNH.dtype))
    floats, ints, tables, places = collect_arrays((bias, mask, *functions), scores.sink_N, N)
    drop = scores.drop
    vectors, n = term_vectors(terms, functions, q_BTNH.dtype, size, width), len(before_cap)
    tile_scores = TileScores(
      mask=mask,
      bias=bias,
      before_cap=vectors.terms[:n],
      after_cap=vectors.terms[n:],
      cap=scores.cap,
      dropout=None if drop is None else (drop.rate, drop.first),
      sink=scores.sink_N is not None,
      S=S,
      places=places,
      n_floats=floats.shape[1],
      n_ints=ints.shape[1],
    )
    seeds, query_BT, key_BS = jnp.zeros(q_BTNH.shape[::2], jnp.int32), None, None
    if drop is not None:
      seeds = jax.lax.bitcast_convert_type(drop.seed_BN, jnp.int32)
      query_BT, key_BS = drop.query_BT, drop.key_BS
    q_scaled = q_BTNH * jnp.asarray(scores.scale, q_BTNH.dtype)
    q, k = padded(q, size), padded(k, width)
    heads_first = lambda a, n: jnp.moveaxis(padded(a, n), 1, 2)
    x = Operands(
      q_BNTH=heads_first(q_scaled, size),
      k_BKSH=heads_first(k_BSKH, width),
      v_BKSH=heads_first(v_BSKH, width),
      q_info=stacked_leaves(q, query_BT),
      k_info=stacked_leaves(k, key_BS),
      floats=floats,
      ints=ints,
      seeds=seeds,
      tables=tables,
      q_terms=vectors.q_terms,
      k_terms=vectors.k_terms,
    )
    dtypes = leaf_dtypes(q), leaf_dtypes(k)
    schedule = Schedule(
      tile_scores, size, width, *dtypes, self.interpret, vectors.constant, _pairs(scores.mask, T, S)
    )
    kinds = tile_kinds(scores.mask, q, k, size, width, S)
    y_BNTH, lse_BN1T = over_mesh(flash_attention(schedule), x, kinds)
    return jnp.moveaxis(y_BNTH, 1, 2)[:, :T], jnp.moveaxis(lse_BN1T[:, :, 0], 1, 2)[:, :T]

  def _sizes(self, T: int, S: int, per_token: int) -> tuple[int, int]:
    """Return the tile sizes for T queries and S keys, as even as possible.

    Tiles are smaller if terms have many bytes per token.
    """

    def fitted(n: int, largest: int) -> int:
      unit = min(largest, _LANES)
      while largest > unit and largest * per_token > _TERM_BYTES:
        largest = max(largest // 2 // unit * unit, unit)
      return -(-n // (-(-n // largest) * unit)) * unit

    return fitted(T, self.queries), fitted(S, self.keys)

  def _functions(
    self, q_BTNH, k_BSKH, v_BSKH, q: TokenInfo, k: TokenInfo, scores: Scores, terms: Sequence[Term]
  ) -> tuple[Tiled, Tiled | None, list[Tiled | None]]:
    """Return the mask, the bias and the functions of the terms, converted to run on tiles.

    Raises:
      Unsupported: if a function cannot run on tiles, or an array does not fit.
    """
    N, H = q_BTNH.shape[2], max(q_BTNH.shape[-1], v_BSKH.shape[-1])
    if H > _WIDEST:
      raise Unsupported(f'head size {H} is larger than {_WIDEST}')
    if q_BTNH.dtype not in (jnp.float32, jnp.bfloat16):
      raise Unsupported(f'{q_BTNH.dtype} is neither float32 nor bfloat16')
    if scores.value_tables:
      raise Unsupported('the kernel does not support position vectors of values (`value_tables`)')
    per_token = term_bytes(terms, q_BTNH.dtype)
    if per_token * _LANES > 2 * _TERM_BYTES:
      maximum = 2 * _TERM_BYTES // _LANES
      raise Unsupported(
        f'terms have {per_token:,} bytes per token and head, more than the maximum of {maximum:,}'
      )
    size, width = self._sizes(q_BTNH.shape[1], k_BSKH.shape[1], per_token)
    tile = lambda info, n: jax.tree.map(
      lambda a: jax.ShapeDtypeStruct((a.shape[0], n), a.dtype), info
    )
    infos = tile(q, size), tile(k, width)
    subject = 'the mask'
    try:
      mask = tiled(on_tokens(scores.mask), *infos, N, 'BTS')
      subject = 'the bias'
      total = lambda q, k: functools.reduce(jnp.add, [bias(q, k) for bias in scores.biases])
      bias = tiled(total, *infos, N, 'BNTS') if scores.biases else None
      subject = 'the function of a term'
      functions = [t.between and tiled(on_tokens(t.between), *infos, N, 'BTS') for t in terms]
    except Unsupported as reason:
      raise Unsupported(f'{subject} {reason}') from None
    B, T, S = q_BTNH.shape[0], q_BTNH.shape[1], k_BSKH.shape[1]
    devices = math.prod(device_count(names) for names in mesh_axes('BN', (B, N)))
    scalars = sum(f.tables.count(False) for f in (mask, bias, *functions) if f)
    entries = -(-T // size) * -(-S // width) + (B * N + N * scalars) // devices
    if entries > _SCALARS:
      raise Unsupported(
        f'{entries:,} tiles and scalars exceed the maximum of {_SCALARS:,}; use larger tiles'
      )
    return mask, bias, functions


def _pairs(mask: Mask, T: int, S: int) -> int:
  """Return the allowed (query, key) pairs of T queries and S keys, or all where unknown."""
  if T != S or (span := mask.reach(np.arange(T), S)) is None:
    return T * S
  first, end = np.maximum(span[0], 0), np.minimum(span[1], S)
  return int(np.maximum(end - first, 0).sum())
