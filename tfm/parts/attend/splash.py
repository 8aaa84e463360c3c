"""JAX's own attention for TPUs, `jax.experimental.pallas.ops.tpu.splash_attention`, for what it has words for."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.parts.attend.base import Attend
from tfm.parts.attend.split import split
from tfm.parts.attend.views import moved, order
from tfm.parts.mask.base import Mask
from tfm.parts.tokeninfo import TokenInfo

_LANES = 128
#: A sink so deep that it takes nothing, unless it is all that a query has: beside it the kernel's own masked scores
#: (-2.4e38) are nothing, so that who sees nobody gets zeros and gives no gradient.
_BOTTOM = -1e30
#: Of how many places back and ahead a query sees: all.
_ALL: tuple[int | None, int | None] = (None, None)
#: The segments of queries and of keys that are padding, which meet nobody's.
_NO_QUERY, _NO_KEY = -1, -2


@dataclasses.dataclass(frozen=True)
class Splash(Attend):
  """softmax(q k) v by JAX's kernels: one forward and two backward, each once for every tile of `queries` x `keys`.

  It knows segments, a band of distances (causal, window, full), a cap, sinks and shared kv heads, and no more; tiles
  that the band leaves out are skipped, those that segments leave out are not. It counts places of the row, so for a
  window tokens are first put in the order of their positions, document by document. `interpret` runs the kernels step
  by step in plain JAX; None does wherever the program is not compiled for a TPU. Over a mesh every device has its rows
  and heads.

  It has been interpreted, and compiled ahead of time for a TPU v5e; it has run on no chip here, nor been timed against
  `pallas`, which takes more. `auto` does not choose it: whoever has a chip and the time to compare may.

  *Cost*: 4 N H FLOPs a pair in a tile of the band, 14 N H backward; B N T (H + 1) numbers. The list of tiles is made
  while the program is traced, (T / `queries`) (S / `keys`) of them.

  *Differs*: the softmax is float32 whatever the precision's `reduce`; the gradient of a sink is summed in the dtype of
  the values.

  *Raises*: UserError for what it refuses.
  """

  queries: int = 512
  keys: int = 512
  interpret: bool | None = None

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1 or self.queries % _LANES or self.keys % _LANES:
      yield f'queries={self.queries}, keys={self.keys} cannot be tiles of splash. Wanted multiples of {_LANES}.'

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    if scores.offsets:
      return 'biases are not among what the kernel adds'
    if scores.contents:
      return 'scores by content and distance (`contents`) are not among what the kernel computes'
    if scores.added:
      return 'vectors that are added to values (`added`) are not among what the kernel computes'
    if scores.drop is not None:
      return 'the kernel keeps every probability: it has no dropout'
    if q_BTNH.dtype not in (jnp.float32, jnp.bfloat16):
      return f'{q_BTNH.dtype} is neither float32 nor bfloat16, the numbers that TPUs multiply'
    read = _read(scores.mask, q, k)
    if odd := sorted(read - {'positions', 'segment_ids'}):
      return f'the mask reads {" and ".join(odd)}, and the kernel is told of nothing but segments and distances'
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    band = _band(scores.mask, T) if 'positions' in read else _ALL
    if band is None or not _said(scores.mask, q, k, band, 'segment_ids' in read, T):
      return 'the mask is no band of distances within segments, and the kernel is told of no other'
    if 'positions' in read and (T != S or not scores.ordered):
      return (
        'it counts places of the row, so a mask that goes by positions must be causal, over tokens that stand in the '
        'order of theirs, without a cache'
      )
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    if (why := self.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores)) is not None:
      raise errors.UserError(f'attend=splash: {why}. Wanted attend=blockwise, which takes any scores.')
    T, S, read = q_BTNH.shape[1], k_BSKH.shape[1], _read(scores.mask, q, k)
    band = _band(scores.mask, T) if 'positions' in read else _ALL
    assert band is not None
    # Padding between tokens takes places and no positions: over it a window would not reach as far as it should.
    asking, seen = (order(lambda info: info.positions, info) if band[0] is not None else None for info in (q, k))
    (q_BTNH, q), (k_BSKH, v_BSKH, k) = moved((q_BTNH, q), asking), moved((k_BSKH, v_BSKH, k), seen)
    rows, size = _tiled(T, self.queries)
    # The kernel wants every query of a band to have a key, the padding's too.
    columns, width = _tiled(max(S, rows) if 'positions' in read else S, self.keys)
    ids = _ids(q, _NO_QUERY, rows, 'segment_ids' in read), _ids(k, _NO_KEY, columns, 'segment_ids' in read)
    padded = lambda a, n: jnp.moveaxis(jnp.pad(a, [(0, 0), (0, n - a.shape[1]), (0, 0), (0, 0)]), 1, 2)
    scaled = q_BTNH * jnp.asarray(scores.scale, q_BTNH.dtype)
    x = padded(scaled, rows), padded(k_BSKH, columns), padded(v_BSKH, columns)
    N = q_BTNH.shape[2]
    sink_N = jnp.full((N,), _BOTTOM) if scores.sink_N is None else scores.sink_N.astype(jnp.float32)
    y_BTNH = jnp.moveaxis(self._over_mesh(x, ids, sink_N, _Plan(band, size, width, scores.cap)), 1, 2)[:, :T]
    return moved(y_BTNH.astype(v_BSKH.dtype), asking and asking.back)

  def _over_mesh(
    self, x: tuple[jax.Array, ...], ids: tuple[jax.Array, ...], sink_N: jax.Array, plan: '_Plan'
  ) -> jax.Array:
    """y_BNTH of (q_BNTH, k_BKSH, v_BKSH), every device of the mesh its rows and heads."""
    (B, N), K = x[0].shape[:2], x[1].shape[1]
    over = split(B, N, K)

    def local(x: tuple[jax.Array, ...], ids: tuple[jax.Array, ...], sink_N: jax.Array) -> jax.Array:
      q_BNTH, k_BKSH, v_BKSH = x
      args = q_BNTH, over.own(k_BKSH), over.own(v_BKSH), *ids, sink_N
      if self.interpret is not None:
        return plan.run(self.interpret, *args)
      # Not the backend at hand, but that which the program is compiled for.
      compiled, interpreted = (lambda *args, how=how: plan.run(how, *args) for how in (False, True))
      return jax.lax.platform_dependent(*args, tpu=compiled, default=interpreted)

    if not over.rows and not over.heads:
      return local(x, ids, sink_N)
    asked, told = jax.P(over.rows, over.heads), jax.P(over.rows, over.kv_heads)
    specs: Any = ((asked, told, told), jax.P(over.rows), jax.P(over.heads))
    return jax.shard_map(local, in_specs=specs, out_specs=asked, check_vma=False)(x, ids, sink_N)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """How the kernel goes about it: how far back and ahead one sees (None: without end), the tiles' sizes, the cap."""

  band: tuple[int | None, int | None]
  size: int
  width: int
  cap: float | None

  def run(self, interpret: bool, q_BNTH, k_BKSH, v_BKSH, asking_BT, seen_BS, sink_N) -> jax.Array:
    """y_BNTH."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash  # slow to import, and not needed but here

    N, T, S, size, width = q_BNTH.shape[1], q_BNTH.shape[2], k_BKSH.shape[2], self.size, self.width
    one = splash.FullMask((T, S)) if self.band == _ALL else splash.LocalMask((T, S), self.band, 0)
    kernel = splash.make_splash_mha(
      splash.MultiHeadMask([one] * N),
      block_sizes=splash.BlockSizes(size, width, width, size, width, width, size, width),
      head_shards=1,
      q_seq_shards=1,
      attn_logits_soft_cap=self.cap,
      interpret=interpret,
    )
    row = lambda q_NTH, k_KSH, v_KSH, asking_T, seen_S: kernel(
      q_NTH, k_KSH, v_KSH, splash.SegmentIds(asking_T, seen_S), sink_N
    )
    return jax.vmap(row)(q_BNTH, k_BKSH, v_BKSH, asking_BT, seen_BS)


def _read(mask: Mask, q: TokenInfo, k: TokenInfo) -> set[str]:
  """What the mask makes its answer of: the fields of infos, and 'an array' of its own."""
  like = lambda info: jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, 2), a.dtype), info)
  given = like(q), like(k)
  closed = jax.make_jaxpr(lambda q, k: mask(q.rows(), k.columns()))(*given)
  live = {v for v in closed.jaxpr.outvars if not isinstance(v, core.Literal)}
  for eqn in reversed(closed.jaxpr.eqns):
    if live & set(eqn.outvars):
      live |= {v for v in eqn.invars if not isinstance(v, core.Literal)}
  fields = [
    str(getattr(path[-1], 'name', None) or path[-1].key) for path, _ in jax.tree_util.tree_leaves_with_path(given)
  ]
  read = {name for name, var in zip(fields, closed.jaxpr.invars, strict=True) if var in live}
  return read | {'an array' for var in closed.jaxpr.constvars if var in live}


def _band(mask: Mask, n: int) -> tuple[int | None, int | None] | None:
  """How many places back and ahead one sees in documents of up to n tokens (None: all); None if the mask is no band."""
  i = np.arange(n)
  if (span := mask.reach(i, n)) is None:
    return None
  first, last = np.maximum(span[0], 0), np.minimum(span[1], n) - 1
  back, ahead = int((i - first).max()), int((last - i).max())
  if (first != np.maximum(i - back, 0)).any() or (last != np.minimum(i + ahead, n - 1)).any():
    return None
  return back if back < n - 1 else None, ahead if ahead < n - 1 else None


def _said(mask: Mask, q: TokenInfo, k: TokenInfo, band: tuple[int | None, int | None], apart: bool, n: int) -> bool:
  """Whether the mask says of the ends of the band, in padding and in two segments, what the kernel would be told."""
  back, ahead = (n if far is None else far for far in band)
  at = np.unique(np.clip([0, 1, back, back + 1, ahead, ahead + 1, n - 1], 0, n - 1))
  pos, segment = (a.reshape(1, -1) for a in np.meshgrid(at, [0, 1, 2]))
  with jax.ensure_compile_time_eval():
    zeros = lambda info: jax.tree.map(lambda a: jnp.zeros(pos.shape, a.dtype), info)
    asking, seen = (
      zeros(info).replace(positions=jnp.asarray(pos), segment_ids=jnp.asarray(segment)) for info in (q, k)
    )
    said = np.asarray(mask(asking.rows(), seen.columns()))
  distance, same = pos[:, :, None] - pos[:, None], segment[:, :, None] == segment[:, None]
  wanted = (distance <= back) & (-distance <= ahead)
  return bool((said == (wanted & same & (segment > 0)[:, None] if apart else wanted)).all())


def _tiled(n: int, most: int) -> tuple[int, int]:
  """(n padded to whole tiles, the size of one): as even as they can be."""
  count = -(-n // most)
  size = -(-n // (count * _LANES)) * _LANES
  return count * size, size


def _ids(info: TokenInfo, padding: int, n: int, apart: bool) -> jax.Array:
  """The segments of n tokens, those of the info and padding; all the same where the mask does not tell them apart."""
  segment = jnp.where(info.segment_ids > 0, info.segment_ids, padding) if apart else jnp.zeros_like(info.segment_ids)
  return jnp.pad(segment.astype(jnp.int32), [(0, 0), (0, n - segment.shape[1])], constant_values=padding)
