"""JAX's own attention for TPUs, `jax.experimental.pallas.ops.tpu.splash_attention`, for what it has
words for.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.attend.base import Attend
from tfm.parts.attend.split import split
from tfm.parts.attend.views import moved, order
from tfm.parts.tokeninfo import TokenInfo

_LANES = 128
#: A sink so deep that it takes nothing, unless it is all that a query has: beside it the kernel's
#: own masked scores (-2.4e38) are nothing, so that who sees nobody gets zeros and gives no
#: gradient.
_BOTTOM = -1e30
#: A band without limits, back and ahead.
_ALL: tuple[int | None, int | None] = (None, None)
#: The segments of queries and of keys that are padding, which meet nobody's.
_NO_QUERY, _NO_KEY = -1, -2


@dataclasses.dataclass(frozen=True)
class Splash(Attend):
  """softmax(q k) v by JAX's kernels: one forward and two backward, each once for every tile of
  `queries` x `keys`.

  It takes masks that declare a band of distances (`Mask.band`: causal, window, full), segments, a
  cap, sinks and shared kv heads, and no more. Tiles outside the band are skipped, tiles of two
  segments are not. The kernel counts places in the row, so for a window the tokens are first sorted
  by position within each document. `interpret` runs the kernels step by step in plain JAX; with
  None that happens wherever the program is not compiled for a TPU. Over a mesh every device has its
  rows and heads.

  It has been interpreted, and compiled ahead of time for a TPU v5e; it has run on no chip here, nor
  been timed against `pallas`, which takes more. `auto` does not choose it: whoever has a chip and
  the time to compare may.

  *Cost*: 4 N H FLOPs a pair in a tile of the band, 14 N H backward; B N T (H + 1) numbers. The list
  of tiles is made while the program is traced, (T / `queries`) (S / `keys`) of them.

  *Differs*: the softmax is float32 whatever the precision's `reduce`; the gradient of a sink is
  summed in the dtype of the values.

  *Raises*: UserError for what it refuses.
  """

  queries: int = 512
  keys: int = 512
  interpret: bool | None = None

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1 or self.queries % _LANES or self.keys % _LANES:
      yield f'queries={self.queries}, keys={self.keys} cannot be tiles of splash. Expected multiples of {_LANES}.'

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
    if (band := scores.mask.band) is None:
      return (
        'the mask declares no band of distances (`Mask.band`), and the kernel takes no other mask'
      )
    if band.same_segment and q.get('bound') is not None:
      return 'the tokens have an order of prediction (`bound`), and the kernel reads only segments and distances'
    if (band.back, band.ahead) != _ALL and (
      q_BTNH.shape[1] != k_BSKH.shape[1] or not scores.ordered
    ):
      return (
        'it counts places in the row, so a mask of positions must be causal, over tokens in the '
        'order of their '
        'positions, without a cache'
      )
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    if (why := self.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores)) is not None:
      raise errors.UserError(
        f'attend=splash: {why}. Expected attend=blockwise, which takes any scores.'
      )
    T, S, declared = q_BTNH.shape[1], k_BSKH.shape[1], scores.mask.band
    by_position, apart = (declared.back, declared.ahead) != _ALL, declared.same_segment
    band = _within(declared.back, T), _within(declared.ahead, T)
    # Padding between tokens takes places but no positions, so a window of places would not reach
    # far enough.
    asking, seen = (
      order(lambda info: info.positions, info) if band[0] is not None else None for info in (q, k)
    )
    (q_BTNH, q), (k_BSKH, v_BSKH, k) = moved((q_BTNH, q), asking), moved((k_BSKH, v_BSKH, k), seen)
    rows, size = _tiled(T, self.queries)
    # In a band every query needs a key, padding included.
    columns, width = _tiled(max(S, rows) if by_position else S, self.keys)
    ids = _ids(q, _NO_QUERY, rows, apart), _ids(k, _NO_KEY, columns, apart)
    padded = lambda a, n: jnp.moveaxis(
      jnp.pad(a, [(0, 0), (0, n - a.shape[1]), (0, 0), (0, 0)]), 1, 2
    )
    scaled = q_BTNH * jnp.asarray(scores.scale, q_BTNH.dtype)
    x = padded(scaled, rows), padded(k_BSKH, columns), padded(v_BSKH, columns)
    N = q_BTNH.shape[2]
    sink_N = jnp.full((N,), _BOTTOM) if scores.sink_N is None else scores.sink_N.astype(jnp.float32)
    y_BTNH = jnp.moveaxis(
      self._over_mesh(x, ids, sink_N, _Schedule(band, size, width, scores.cap)), 1, 2
    )[:, :T]
    return moved(y_BTNH.astype(v_BSKH.dtype), asking and asking.back)

  def _over_mesh(
    self,
    x: tuple[jax.Array, ...],
    ids: tuple[jax.Array, ...],
    sink_N: jax.Array,
    schedule: '_Schedule',
  ) -> jax.Array:
    """y_BNTH of (q_BNTH, k_BKSH, v_BKSH), every device of the mesh its rows and heads."""
    (B, N), K = x[0].shape[:2], x[1].shape[1]
    over = split(B, N, K)

    def local(x: tuple[jax.Array, ...], ids: tuple[jax.Array, ...], sink_N: jax.Array) -> jax.Array:
      q_BNTH, k_BKSH, v_BKSH = x
      args = q_BNTH, over.own(k_BKSH), over.own(v_BKSH), *ids, sink_N
      if self.interpret is not None:
        return schedule.run(self.interpret, *args)
      # Not the backend at hand, but that which the program is compiled for.
      compiled, interpreted = (
        lambda *args, how=how: schedule.run(how, *args) for how in (False, True)
      )
      return jax.lax.platform_dependent(*args, tpu=compiled, default=interpreted)

    if not over.rows and not over.heads:
      return local(x, ids, sink_N)
    asked, told = jax.P(over.rows, over.heads), jax.P(over.rows, over.kv_heads)
    specs: Any = ((asked, told, told), jax.P(over.rows), jax.P(over.heads))
    return jax.shard_map(local, in_specs=specs, out_specs=asked, check_vma=False)(x, ids, sink_N)


@dataclasses.dataclass(frozen=True)
class _Schedule:
  """How the kernel goes about it: how far back and ahead one sees (None: without end), the tiles'
  sizes, the cap.
  """

  band: tuple[int | None, int | None]
  size: int
  width: int
  cap: float | None

  def run(self, interpret: bool, q_BNTH, k_BKSH, v_BKSH, asking_BT, seen_BS, sink_N) -> jax.Array:
    """y_BNTH."""
    from jax.experimental.pallas.ops.tpu import (
      splash_attention as splash,  # slow to import, and not needed but here
    )

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


def _within(distance: int | None, n: int) -> int | None:
  """The distance, or None if it leaves nothing out of a row of n tokens."""
  return None if distance is None or distance >= n - 1 else distance


def _tiled(n: int, most: int) -> tuple[int, int]:
  """(n padded to whole tiles, the size of one): as even as they can be."""
  count = -(-n // most)
  size = -(-n // (count * _LANES)) * _LANES
  return count * size, size


def _ids(info: TokenInfo, padding: int, n: int, apart: bool) -> jax.Array:
  """The segments of n tokens, padding included; all the same where the mask allows pairs across
  segments.
  """
  segment = (
    jnp.where(info.segment_ids > 0, info.segment_ids, padding)
    if apart
    else jnp.zeros_like(info.segment_ids)
  )
  return jnp.pad(
    segment.astype(jnp.int32), [(0, 0), (0, n - segment.shape[1])], constant_values=padding
  )
