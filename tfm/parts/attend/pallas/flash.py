"""Attention tile by tile on a TPU: scores, mask, biases and dropout live and die in its vector memory."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.axes import mesh_axes
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.attend.pallas.plan import Operands, Plan
from tfm.parts.attend.pallas.rules import Rules
from tfm.parts.attend.pallas.tiled import Tiled, Unfit, tiled
from tfm.parts.attend.pallas.visits import kinds, listed
from tfm.parts.attend.split import split, ways
from tfm.parts.attend.views import joined, worth
from tfm.parts.mask.base import View
from tfm.parts.site import Site

_LANES = 128
_WIDEST = 256
#: Of the 2^18 numbers that a TPU's scalar memory holds.
_SCALARS = 3 * 2**16


@dataclasses.dataclass(frozen=True)
class Pallas(Attend):
  """softmax(q k) v in one kernel forward and two backward, for TPUs (arXiv:2307.08691).

  Mask and biases are run inside, on tiles of `queries` x `keys`; tiles in which nobody sees anybody are neither
  computed nor fetched, and where all is seen nothing is masked. Kv heads are not repeated. `interpret` runs the kernels
  step by step in plain JAX; None does wherever the program is not compiled for a TPU. Over a mesh every device has its
  rows and heads. Long rows are put in the orders that the mask knows (`Mask.views`), a kernel for each.

  *Cost*: 4 N H FLOPs a pair in a tile that is computed, 14 N H backward; B N T (H + 3) numbers; scores never leave the
  chip. A table of biases is looked up entry by entry, those that a tile's distances fall on.

  *Differs*: the softmax is float32 whatever the precision's `reduce`.
  """

  queries: int = 512
  keys: int = 512
  interpret: bool | None = None

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1:
      yield f'queries={self.queries}, keys={self.keys} is no size of a tile. Wanted at least 1 of each.'
    elif not self.interpret and (self.queries % _LANES or self.keys % _LANES):
      yield f'queries={self.queries}, keys={self.keys} cannot be tiles on a TPU. Wanted multiples of {_LANES}.'

  def loses(self, platform, B, N, T, S):
    return None if platform == 'tpu' else f'its kernels are for TPUs, and interpreted on a {platform}'

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    try:
      for view in self._views(q_BTNH, scores):
        self._functions(q_BTNH, k_BSKH, v_BSKH, q, k, dataclasses.replace(scores, mask=view.mask))
    except Unfit as reason:
      return str(reason)
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    return joined(self._summed, self._views(q_BTNH, scores), q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)

  def _views(self, q_BTNH: jax.Array, scores: Scores) -> tuple[View, ...]:
    return worth(scores.mask, q_BTNH.shape[1] / self.queries)

  def _summed(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    """y_BTNH of one view, and lse_BTN."""
    try:
      mask, bias = self._functions(q_BTNH, k_BSKH, v_BSKH, q, k, scores)
    except Unfit as reason:
      raise errors.UserError(f'attend=pallas: {reason}. Wanted attend=blockwise, which takes any scores.') from None
    T, N, S = q_BTNH.shape[1], q_BTNH.shape[2], k_BSKH.shape[1]
    size, width = self._sizes(T, S)
    numbers, whole, starts = _numbers(mask, bias, scores.sink_N, N)
    drop = None if scores.drop is None else (scores.drop.rate, scores.drop.first)
    sink, counts = scores.sink_N is not None, (numbers.shape[1], whole.shape[1])
    rules = Rules(mask, bias, scores.cap, drop, sink, S, starts, *counts)
    seeds, places = jnp.zeros(q_BTNH.shape[::2], jnp.int32), (None, None)
    if scores.drop is not None:
      seeds = jax.lax.bitcast_convert_type(scores.drop.seed_BN, jnp.int32)
      places = scores.drop.query_BT, scores.drop.key_BS
    scaled = q_BTNH * jnp.asarray(scores.scale, q_BTNH.dtype)
    q, k = _padded(q, size), _padded(k, width)
    tiles = [jnp.moveaxis(_padded(a, n), 1, 2) for a, n in ((scaled, size), (k_BSKH, width), (v_BSKH, width))]
    sites = [_stacked(site, place) for site, place in zip((q, k), places, strict=True)]
    x = Operands(tiles[0], tiles[1], tiles[2], sites[0], sites[1], numbers, whole, seeds)
    run = _flash(Plan(rules, size, width, _dtypes(q), _dtypes(k), self.interpret))
    y_BNTH, lse_BN1T = _over_mesh(run, x, kinds(scores.mask, q, k, size, width, S))
    return jnp.moveaxis(y_BNTH, 1, 2)[:, :T], jnp.moveaxis(lse_BN1T[:, :, 0], 1, 2)[:, :T]

  def _sizes(self, T: int, S: int) -> tuple[int, int]:
    """The tiles of this many queries and keys: as even as they can be."""

    def fitted(n: int, most: int) -> int:
      unit = min(most, _LANES)
      return -(-n // (-(-n // most) * unit)) * unit

    return fitted(T, self.queries), fitted(S, self.keys)

  def _functions(self, q_BTNH, k_BSKH, v_BSKH, q: Site, k: Site, scores: Scores) -> tuple[Tiled, Tiled | None]:
    """Mask and bias, to be run on tiles.

    Raises: Unfit.
    """
    N, H = q_BTNH.shape[2], max(q_BTNH.shape[-1], v_BSKH.shape[-1])
    if H > _WIDEST:
      raise Unfit(f'heads of {H} numbers are wider than {_WIDEST}')
    if q_BTNH.dtype not in (jnp.float32, jnp.bfloat16):
      raise Unfit(f'{q_BTNH.dtype} is neither float32 nor bfloat16, the numbers that TPUs multiply')
    if scores.contents:
      raise Unfit('scores by content and distance (`contents`) are not among what the kernel computes')
    if scores.added:
      raise Unfit('vectors that are added to values (`added`) are not among what the kernel computes')
    size, width = self._sizes(q_BTNH.shape[1], k_BSKH.shape[1])
    tile = lambda site, n: jax.tree.map(lambda a: jax.ShapeDtypeStruct((a.shape[0], n), a.dtype), site)
    sites = tile(q, size), tile(k, width)
    said = 'the mask'
    try:
      mask = tiled(lambda q, k: scores.mask(q.rows(), k.columns()), *sites, N, 'BTS')
      said = 'the bias'
      total = lambda q, k: functools.reduce(jnp.add, [bias(q, k) for bias in scores.biases])
      bias = tiled(total, *sites, N, 'BNTS') if scores.biases else None
    except Unfit as reason:
      raise Unfit(f'{said} {reason}') from None
    B, T, S = q_BTNH.shape[0], q_BTNH.shape[1], k_BSKH.shape[1]
    devices = math.prod(ways(names) for names in mesh_axes('BN', (B, N)))
    read = [*mask.arrays, *(bias.arrays if bias else [])]
    numbers = -(-T // size) * -(-S // width) + (B * N + N * sum(a.shape[1] for a in read)) // devices
    if numbers > _SCALARS:
      raise Unfit(
        f'{numbers:,} tiles and numbers of heads are more than the {_SCALARS:,} that fit; larger tiles are fewer'
      )
    return mask, bias


def _flash(plan: Plan) -> Callable[[Operands, jax.Array], tuple[jax.Array, jax.Array]]:
  """(operands, what is seen in each tile) -> (y_BNTH, lse_BN1T)."""

  from tfm.parts.attend.pallas import kernels  # slow to import, and not needed but here

  @jax.custom_vjp
  def flash(x: Operands, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    return kernels.forward(plan, x, listed(seen))

  def forward(x: Operands, seen: jax.Array) -> tuple[Any, Any]:
    y_BNTH, lse = kernels.forward(plan, x, listed(seen))
    return (y_BNTH, lse), (x, seen, y_BNTH, lse)

  def backward(residuals: Any, g: tuple[jax.Array, jax.Array]) -> tuple[Operands, None]:
    (x, seen, y_BNTH, lse), (g_BNTH, g_lse) = residuals, g
    inner = jnp.sum(g_BNTH.astype(jnp.float32) * y_BNTH.astype(jnp.float32), -1)[:, :, None] - g_lse
    stats = jnp.concatenate([lse, inner], 2)
    dq_BNTH, d_numbers = kernels.backward_queries(plan, x, listed(seen), g_BNTH, stats)
    dk_BKSH, dv_BKSH = kernels.backward_keys(plan, x, listed(jnp.swapaxes(seen, 1, 2)), g_BNTH, stats)
    d_numbers = d_numbers.sum((0, 2))
    if plan.rules.sink:
      share = jnp.exp(x.numbers[None, :, :1] - lse[:, :, 0])
      d_numbers = d_numbers.at[:, 0].set(-(share * inner[:, :, 0]).sum((0, 2)))
    none = x._replace(q_site=None, k_site=None, whole=None, seeds=None)
    return none._replace(q_BNTH=dq_BNTH, k_BKSH=dk_BKSH, v_BKSH=dv_BKSH, numbers=d_numbers), None

  flash.defvjp(forward, backward)
  return flash


def _over_mesh(run: Callable[[Operands, jax.Array], Any], x: Operands, seen: jax.Array) -> Any:
  """`run(x, seen)`, every device of the mesh its rows and heads: a compiler cannot split a kernel."""
  (B, N), K = x.q_BNTH.shape[:2], x.k_BKSH.shape[1]
  over = split(B, N, K)
  rows, heads, kv_heads = over[:3]
  if not rows and not heads:
    return run(x, seen)

  def local(x: Operands, seen: jax.Array) -> Any:
    return run(x._replace(k_BKSH=over.own(x.k_BKSH), v_BKSH=over.own(x.v_BKSH)), seen)

  asked, told, by_row, by_head = jax.P(rows, heads), jax.P(rows, kv_heads), jax.P(rows), jax.P(heads)
  specs: Any = (asked, told, told, by_row, by_row, by_head, by_head, asked)
  return jax.shard_map(local, in_specs=(Operands(*specs), by_row), out_specs=asked, check_vma=False)(x, seen)


def _numbers(mask: Tiled, bias: Tiled | None, sink_N: jax.Array | None, N: int) -> tuple[jax.Array, jax.Array, Any]:
  """(the floats of every head, a sink first; its integers; where those of each array begin)."""
  floats = [] if sink_N is None else [sink_N.astype(jnp.float32)[:, None]]
  ints: list[jax.Array] = []
  places = []
  for array in [*(bias.arrays if bias else []), *mask.arrays]:
    is_float = array.dtype == jnp.float32
    kind = floats if is_float else ints
    places.append((is_float, sum(a.shape[1] for a in kind)))
    kind.append(jnp.broadcast_to(array, (N, array.shape[1])))
  floats, ints = floats or [jnp.zeros((N, 1))], ints or [jnp.zeros((N, 1), jnp.int32)]
  return jnp.concatenate(floats, 1), jnp.concatenate(ints, 1), tuple(places)


def _padded(tree: Any, size: int) -> Any:
  """Arrays `[B, T, ...]` padded to whole tiles with zeros, which is padding's segment too."""
  return jax.tree.map(lambda a: jnp.pad(a, [(0, 0), (0, -a.shape[1] % size), *[(0, 0)] * (a.ndim - 2)]), tree)


def _stacked(site: Site, place_BT: jax.Array | None) -> jax.Array:
  """The leaves of the site, and the places that its tokens had in the row if they have been moved."""
  leaves = [a.astype(jnp.int32) for a in jax.tree.leaves(site)]
  if place_BT is not None:
    T = place_BT.shape[1]
    leaves.append(jnp.pad(place_BT, [(0, 0), (0, leaves[0].shape[1] - T)], constant_values=T))
  return jnp.stack(leaves, 1)


def _dtypes(site: Site) -> tuple[Any, ...]:
  return tuple(a.dtype for a in jax.tree.leaves(site))
