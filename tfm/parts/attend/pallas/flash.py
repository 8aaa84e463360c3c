"""Attention tile by tile on a TPU: scores, mask, biases and dropout live and die in its vector
memory.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import mesh_axes
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.attend.pallas.rules import Added, Rules
from tfm.parts.attend.pallas.schedule import Operands, Schedule
from tfm.parts.attend.pallas.tiled import Tiled, Unfit, tiled
from tfm.parts.attend.pallas.visits import kinds, listed
from tfm.parts.attend.split import split, ways
from tfm.parts.attend.views import joined, worth
from tfm.parts.mask.base import View
from tfm.parts.term import Term, scaled
from tfm.parts.tokeninfo import TokenInfo

_LANES = 128
_WIDEST = 256
#: Of bytes that terms have of a tile's tokens: with more tiles are smaller, and twice as many a
#: tile of 128 may have.
_BESIDE = 2**19
#: Of the 2^18 numbers that a TPU's scalar memory holds.
_SCALARS = 3 * 2**16


@dataclasses.dataclass(frozen=True)
class Pallas(Attend):
  """softmax(q k) v in one kernel forward and two backward, for TPUs (arXiv:2307.08691).

  Mask and biases are run inside, on tiles of `queries` x `keys`; tiles in which nobody sees anybody
  are neither computed nor fetched, and where all is seen nothing is masked. Kv heads are not
  repeated. `interpret` runs the kernels step by step in plain JAX; None does wherever the program
  is not compiled for a TPU. Over a mesh every device has its rows and heads. Long rows are put in
  the orders that the mask knows (`Mask.views`), a kernel for each.

  *Cost*: 4 N H FLOPs a pair in a tile that is computed, 14 N H backward; B N T (H + 3) numbers;
  scores never leave the chip. Of a term (`parts/term.py`) its X numbers of every query or key and
  head are kept; as a product it costs 2 N X FLOPs a pair, 8 N X backward, and with keys for every
  head their gradients are B N S H numbers. Tables are looked up 128 entries at a time and their
  gradients summed entry by entry, those that a tile's distances fall on: a look-up's backward pass
  is many times its forward one, but for biases among neighbours, whose diagonals are summed first.

  *Differs*: the softmax is float32 whatever the precision's `reduce`; numbers of terms are as exact
  as queries."""

  queries: int = 512
  keys: int = 512
  interpret: bool | None = None

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1:
      yield f'queries={self.queries}, keys={self.keys} is no size of a tile. Expected at least 1 of each.'
    elif not self.interpret and (self.queries % _LANES or self.keys % _LANES):
      yield f'queries={self.queries}, keys={self.keys} cannot be tiles on a TPU. Expected multiples of {_LANES}.'

  def loses(self, platform, B, N, T, S):
    return (
      None if platform == 'tpu' else f'its kernels are for TPUs, and interpreted on a {platform}'
    )

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    try:
      inside, outside = jax.eval_shape(functools.partial(_terms, scores), q_BTNH, k_BSKH, q, k)
      for view in self._views(q_BTNH, scores):
        own = dataclasses.replace(scores, mask=view.mask)
        self._functions(q_BTNH, k_BSKH, v_BSKH, q, k, own, inside + outside)
    except Unfit as reason:
      return str(reason)
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    return joined(
      self._summed, self._views(q_BTNH, scores), q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce
    )

  def _views(self, q_BTNH: jax.Array, scores: Scores) -> tuple[View, ...]:
    return worth(scores.mask, q_BTNH.shape[1] / self.queries)

  def _summed(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    """y_BTNH of one view, and lse_BTN."""
    inside, outside = _terms(scores, q_BTNH, k_BSKH, q, k)
    terms = inside + outside
    try:
      mask, bias, of_terms = self._functions(q_BTNH, k_BSKH, v_BSKH, q, k, scores, terms)
    except Unfit as reason:
      raise errors.UserError(
        f'attend=pallas: {reason}. Expected attend=blockwise, which takes any scores.'
      ) from None
    T, N, S = q_BTNH.shape[1], q_BTNH.shape[2], k_BSKH.shape[1]
    size, width = self._sizes(T, S, _beside(terms, q_BTNH.dtype))
    numbers, whole, tables, places = _numbers((bias, mask, *of_terms), scores.sink_N, N)
    drop = None if scores.drop is None else (scores.drop.rate, scores.drop.first)
    sink, counts = scores.sink_N is not None, (numbers.shape[1], whole.shape[1])
    laid, n = _laid(terms, of_terms, q_BTNH.dtype, size, width), len(inside)
    rules = Rules(
      mask, bias, laid.added[:n], laid.added[n:], scores.cap, drop, sink, S, places, *counts
    )
    seeds, places = jnp.zeros(q_BTNH.shape[::2], jnp.int32), (None, None)
    if scores.drop is not None:
      seeds = jax.lax.bitcast_convert_type(scores.drop.seed_BN, jnp.int32)
      places = scores.drop.query_BT, scores.drop.key_BS
    q_scaled = q_BTNH * jnp.asarray(scores.scale, q_BTNH.dtype)
    q, k = _padded(q, size), _padded(k, width)
    tiles = [
      jnp.moveaxis(_padded(a, n), 1, 2)
      for a, n in ((q_scaled, size), (k_BSKH, width), (v_BSKH, width))
    ]
    infos = [_stacked(info, place) for info, place in zip((q, k), places, strict=True)]
    x = Operands(
      tiles[0],
      tiles[1],
      tiles[2],
      infos[0],
      infos[1],
      numbers,
      whole,
      seeds,
      tables,
      laid.asked,
      laid.told,
    )
    run = _flash(
      Schedule(rules, size, width, _dtypes(q), _dtypes(k), self.interpret, laid.constant)
    )
    y_BNTH, lse_BN1T = _over_mesh(run, x, kinds(scores.mask, q, k, size, width, S))
    return jnp.moveaxis(y_BNTH, 1, 2)[:, :T], jnp.moveaxis(lse_BN1T[:, :, 0], 1, 2)[:, :T]

  def _sizes(self, T: int, S: int, wide: int) -> tuple[int, int]:
    """The tiles of this many queries and keys: as even as they can be, smaller where terms have
    much of a token.
    """

    def fitted(n: int, most: int) -> int:
      unit = min(most, _LANES)
      while most > unit and most * wide > _BESIDE:
        most = max(most // 2 // unit * unit, unit)
      return -(-n // (-(-n // most) * unit)) * unit

    return fitted(T, self.queries), fitted(S, self.keys)

  def _functions(
    self, q_BTNH, k_BSKH, v_BSKH, q: TokenInfo, k: TokenInfo, scores: Scores, terms: Sequence[Term]
  ) -> tuple[Tiled, Tiled | None, list[Tiled | None]]:
    """Mask, bias and the functions of the terms, to be run on tiles.

    Raises: Unfit.
    """
    N, H = q_BTNH.shape[2], max(q_BTNH.shape[-1], v_BSKH.shape[-1])
    if H > _WIDEST:
      raise Unfit(f'heads of {H} numbers are wider than {_WIDEST}')
    if q_BTNH.dtype not in (jnp.float32, jnp.bfloat16):
      raise Unfit(f'{q_BTNH.dtype} is neither float32 nor bfloat16, the numbers that TPUs multiply')
    if scores.added:
      raise Unfit(
        'vectors that are added to values (`added`) are not among what the kernel computes'
      )
    wide = _beside(terms, q_BTNH.dtype)
    if wide * _LANES > 2 * _BESIDE:
      most = 2 * _BESIDE // _LANES
      raise Unfit(
        f'terms have {wide:,} bytes of a token for a head, and a chip holds {most:,} beside a tile'
      )
    size, width = self._sizes(q_BTNH.shape[1], k_BSKH.shape[1], wide)
    tile = lambda info, n: jax.tree.map(
      lambda a: jax.ShapeDtypeStruct((a.shape[0], n), a.dtype), info
    )
    infos = tile(q, size), tile(k, width)
    said = 'the mask'
    try:
      mask = tiled(_of_rows(scores.mask), *infos, N, 'BTS')
      said = 'the bias'
      total = lambda q, k: functools.reduce(jnp.add, [bias(q, k) for bias in scores.biases])
      bias = tiled(total, *infos, N, 'BNTS') if scores.biases else None
      said = 'what is looked up'
      of_terms = [t.between and tiled(_of_rows(t.between), *infos, N, 'BTS') for t in terms]
    except Unfit as reason:
      raise Unfit(f'{said} {reason}') from None
    B, T, S = q_BTNH.shape[0], q_BTNH.shape[1], k_BSKH.shape[1]
    devices = math.prod(ways(names) for names in mesh_axes('BN', (B, N)))
    single = sum(f.tables.count(False) for f in (mask, bias, *of_terms) if f)
    numbers = -(-T // size) * -(-S // width) + (B * N + N * single) // devices
    if numbers > _SCALARS:
      raise Unfit(
        f'{numbers:,} tiles and numbers of heads are more than the {_SCALARS:,} that fit; larger '
        f'tiles are fewer'
      )
    return mask, bias, of_terms


def _flash(schedule: Schedule) -> Callable[[Operands, jax.Array], tuple[jax.Array, jax.Array]]:
  """(operands, what is seen in each tile) -> (y_BNTH, lse_BN1T)."""

  from tfm.parts.attend.pallas import kernels  # slow to import, and not needed but here

  @jax.custom_vjp
  def flash(x: Operands, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    return kernels.forward(schedule, x, listed(seen))

  def forward(x: Operands, seen: jax.Array) -> tuple[Any, Any]:
    y_BNTH, lse = kernels.forward(schedule, x, listed(seen))
    return (y_BNTH, lse), (x, seen, y_BNTH, lse)

  def backward(residuals: Any, g: tuple[jax.Array, jax.Array]) -> tuple[Operands, None]:
    (x, seen, y_BNTH, lse), (g_BNTH, g_lse) = residuals, g
    inner = jnp.sum(g_BNTH.astype(jnp.float32) * y_BNTH.astype(jnp.float32), -1)[:, :, None] - g_lse
    stats = jnp.concatenate([lse, inner], 2)
    dq_BNTH, d_numbers, *more = kernels.backward_queries(schedule, x, listed(seen), g_BNTH, stats)
    of_told = [i for i in range(len(x.told)) if i not in schedule.constant]
    of_keys = kernels.backward_keys(schedule, x, listed(jnp.swapaxes(seen, 1, 2)), g_BNTH, stats)
    d_numbers, learned = d_numbers.sum((0, 2)), schedule.rules.learned(x.tables)
    of_tables = dict(zip(learned, (d.sum(0) for d in more[: len(learned)]), strict=True))
    dk_BKSH, dv_BKSH, *d_told = map(
      _of_heads, of_keys, [x.k_BKSH, x.v_BKSH, *(x.told[i] for i in of_told)]
    )
    told = dict(zip(of_told, d_told, strict=True))
    if schedule.rules.sink:
      share = jnp.exp(x.numbers[None, :, :1] - lse[:, :, 0])
      d_numbers = d_numbers.at[:, 0].set(-(share * inner[:, :, 0]).sum((0, 2)))
    none = x._replace(
      q_info=None, k_info=None, whole=None, seeds=None, asked=tuple(more[len(learned) :])
    )
    none = none._replace(tables=tuple(of_tables.get(i) for i in range(len(x.tables))))
    none = none._replace(told=tuple(told.get(i) for i in range(len(x.told))))
    return none._replace(q_BNTH=dq_BNTH, k_BKSH=dk_BKSH, v_BKSH=dv_BKSH, numbers=d_numbers), None

  flash.defvjp(forward, backward)
  return flash


def _of_heads(d: jax.Array, x: jax.Array) -> jax.Array:
  """The gradient of x, given that of as many heads as have one of their own."""
  return d.reshape(*x.shape[:2], -1, *x.shape[2:]).sum(2).astype(x.dtype)


def _over_mesh(run: Callable[[Operands, jax.Array], Any], x: Operands, seen: jax.Array) -> Any:
  """`run(x, seen)`, every device of the mesh its rows and heads: a compiler cannot split a kernel."""
  (B, N), K = x.q_BNTH.shape[:2], x.k_BKSH.shape[1]
  over = split(B, N, K)
  rows, heads, kv_heads = over[:3]
  if not rows and not heads:
    return run(x, seen)

  # What terms have of keys is that of all heads, of each query head, or of each kv head.
  by_kv = [a.shape[1] not in (1, N) for a in x.told]

  def local(x: Operands, seen: jax.Array) -> Any:
    of_terms = tuple(over.own(a) if own else a for a, own in zip(x.told, by_kv, strict=True))
    return run(
      x._replace(k_BKSH=over.own(x.k_BKSH), v_BKSH=over.own(x.v_BKSH), told=of_terms), seen
    )

  asked, told, by_row, by_head = (
    jax.P(rows, heads),
    jax.P(rows, kv_heads),
    jax.P(rows),
    jax.P(heads),
  )
  of_terms = tuple(
    told if own else by_row if a.shape[1] == 1 else asked
    for a, own in zip(x.told, by_kv, strict=True)
  )
  specs: Any = (
    asked,
    told,
    told,
    by_row,
    by_row,
    by_head,
    by_head,
    asked,
    by_head,
    asked,
    of_terms,
  )
  return jax.shard_map(
    local, in_specs=(Operands(*specs), by_row), out_specs=asked, check_vma=False
  )(x, seen)


def _numbers(
  functions: Sequence[Tiled | None], sink_N: jax.Array | None, N: int
) -> tuple[Any, ...]:
  """(the floats of every head, a sink first; its integers; tables; for each function, where each of
  its arrays is).
  """
  floats = [] if sink_N is None else [sink_N.astype(jnp.float32)[:, None]]
  ints: list[jax.Array] = []
  tables: list[jax.Array] = []
  places = []
  for function in functions:
    own = []
    for array, table in zip(function.arrays, function.tables, strict=True) if function else ():
      name = 'table' if table else 'float' if array.dtype == jnp.float32 else 'int'
      kind = {'table': tables, 'float': floats, 'int': ints}[name]
      own.append((name, len(kind)))
      array = jnp.broadcast_to(array, (N, array.shape[1]))
      kind.append(_chunks(array) if table else array)
    places.append(tuple(own))
  floats, ints = floats or [jnp.zeros((N, 1))], ints or [jnp.zeros((N, 1), jnp.int32)]
  return jnp.concatenate(floats, 1), jnp.concatenate(ints, 1), tuple(tables), tuple(places)


def _chunks(array: jax.Array) -> jax.Array:
  """Tables `[N, U]` in chunks of 128."""
  return jnp.pad(array, [(0, 0), (0, -array.shape[1] % _LANES)]).reshape(array.shape[0], -1, _LANES)


def _terms(
  scores: Scores, q_BTNH: jax.Array, k_BSKH: jax.Array, q: TokenInfo, k: TokenInfo
) -> tuple[Any, Any]:
  """The terms that are added before the cap, scaled, and those after it."""
  inside = [
    scaled(term, scores.scale)
    for content in scores.contents
    for term in content(q_BTNH, k_BSKH, q, k)
  ]
  return inside, [product(q, k) for product in scores.products]


def _of_rows(
  function: Callable[[TokenInfo, TokenInfo], jax.Array],
) -> Callable[[TokenInfo, TokenInfo], jax.Array]:
  """A function of infos that broadcast as one of infos `[B, T]` and `[B, S]`."""
  return lambda q, k: function(q.rows(), k.columns())


def _of_tokens(term: Term) -> tuple[jax.Array | None, jax.Array | None]:
  """What a term has of queries `[B, N, T, X]` and of keys `[B, K, S, X]`."""
  return getattr(term, 'a_BNTX', None), getattr(term, 'b_BKSX', None)


def _beside(terms: Sequence[Term], dtype: Any) -> int:
  """Bytes that terms have of a query and a key for a head."""
  each = [x.shape[-1] for term in terms for x in _of_tokens(term) if x is not None]
  return sum(-(-X // _LANES) * _LANES for X in each) * jnp.dtype(dtype).itemsize


class _Laid(NamedTuple):
  """What terms have of queries and keys, which of the latter is constant, and the terms as kernels
  know them.
  """

  asked: tuple[jax.Array, ...]
  told: tuple[jax.Array, ...]
  constant: frozenset[int]
  added: tuple[Added, ...]


def _laid(
  terms: Sequence[Term], functions: Sequence[Tiled | None], dtype: Any, size: int, width: int
) -> _Laid:
  """In whole tiles, their numbers as exact as those of queries are."""
  asked: list[jax.Array] = []
  told: list[jax.Array] = []
  constant, added = set(), []

  def put(x: jax.Array | None, among: list[jax.Array], tokens: int) -> int | None:
    if x is None:
      return None
    T, X = x.shape[2:]
    among.append(jnp.pad(x.astype(dtype), [(0, 0), (0, 0), (0, -T % tokens), (0, -X % _LANES)]))
    return len(among) - 1

  for i, (term, function) in enumerate(zip(terms, functions, strict=True)):
    of_queries, of_keys = _of_tokens(term)
    added.append(Added(put(of_queries, asked, size), put(of_keys, told, width), function, i + 2))
    if getattr(term, 'constant', False):
      constant.add(len(told) - 1)
  return _Laid(tuple(asked), tuple(told), frozenset(constant), tuple(added))


def _padded(tree: Any, size: int) -> Any:
  """Arrays `[B, T, ...]` padded to whole tiles with zeros, which is padding's segment too."""
  return jax.tree.map(
    lambda a: jnp.pad(a, [(0, 0), (0, -a.shape[1] % size), *[(0, 0)] * (a.ndim - 2)]), tree
  )


def _stacked(info: TokenInfo, place_BT: jax.Array | None) -> jax.Array:
  """The leaves of the info, and the places that its tokens had in the row if they have been moved."""
  leaves = [a.astype(jnp.int32) for a in jax.tree.leaves(info)]
  if place_BT is not None:
    T = place_BT.shape[1]
    leaves.append(jnp.pad(place_BT, [(0, 0), (0, leaves[0].shape[1] - T)], constant_values=T))
  return jnp.stack(leaves, 1)


def _dtypes(info: TokenInfo) -> tuple[Any, ...]:
  return tuple(a.dtype for a in jax.tree.leaves(info))
