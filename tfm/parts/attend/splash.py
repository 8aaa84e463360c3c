"""JAX's splash attention for TPUs, for the masks that it supports."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.attend.base import Attend
from tfm.parts.attend.split import split
from tfm.parts.attend.views import order, reorder
from tfm.parts.tokeninfo import TokenInfo

_LANES = 128
#: A sink logit of no weight, unless all keys of a query are masked out. The kernel's masked scores
#: (-2.4e38) are far lower, so such a query returns zeros and has no gradient.
_BOTTOM = -1e30
#: A band without limits.
_ALL: tuple[int | None, int | None] = (None, None)
#: The segment ids of padding queries and keys. They differ, so padding is never attended to.
_NO_QUERY, _NO_KEY = -1, -2


@dataclasses.dataclass(frozen=True)
class Splash(Attend):
  """JAX's TPU kernels `jax.experimental.pallas.ops.tpu.splash_attention` (arXiv:2307.08691).

  They support masks with a band of distances (`Mask.band`: causal, window, full), segments, a score
  cap, sinks and grouped key/value heads. Tiles outside the band are skipped; tiles of two segments
  are not. The kernels count indices in the sequence, so for a window the tokens are first sorted by
  position within each document. Batch and heads may be sharded over a mesh.

  A pair in a tile of the band costs 4 N H FLOPs, 14 N H backward. Memory is B N T (H + 1) numbers.
  The list of (T / `queries`) (S / `keys`) tiles is made at trace time.

  Attributes:
    queries: the number of queries in a tile.
    keys: the number of keys in a tile.
    interpret: True interprets the kernels in plain JAX, False compiles them, None compiles them on
      TPUs only.

  Note:
    It has been interpreted, and compiled ahead of time for a TPU v5e, but has not run on a TPU.
    `auto` does not choose it, since it has not been timed against `pallas`, which supports more.

    The softmax is float32 whatever the precision's `reduce`. The gradient of a sink is summed in
    the dtype of the values.

  Raises:
    UserError: if the call is not supported.
  """

  queries: int = 512
  keys: int = 512
  interpret: bool | None = None

  def check(self) -> Iterator[str]:
    if self.queries < 1 or self.keys < 1 or self.queries % _LANES or self.keys % _LANES:
      yield (
        f'queries={self.queries}, keys={self.keys} are not tile sizes of splash. '
        f'Expected multiples of {_LANES}.'
      )

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    if scores.offsets:
      return 'the kernel does not support biases'
    if scores.contents:
      return 'the kernel does not support content terms (`contents`)'
    if scores.value_tables:
      return 'the kernel does not support position vectors of values (`value_tables`)'
    if scores.drop is not None:
      return 'the kernel does not support dropout'
    if q_BTNH.dtype not in (jnp.float32, jnp.bfloat16):
      return f'{q_BTNH.dtype} is neither float32 nor bfloat16'
    if (band := scores.mask.band) is None:
      return 'the mask is not a band of distances (`Mask.band`)'
    if band.same_segment and q.get('bound') is not None:
      return 'the kernel does not support a prediction order (`bound`)'
    if (band.back, band.ahead) != _ALL and (
      q_BTNH.shape[1] != k_BSKH.shape[1] or not scores.ordered
    ):
      return 'a band must be causal, over tokens in the order of their positions, without a cache'
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    if (why := self.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores)) is not None:
      raise errors.UserError(
        f'attend=splash: {why}. Expected attend=blockwise, which supports all scores.'
      )
    T, S, declared = q_BTNH.shape[1], k_BSKH.shape[1], scores.mask.band
    by_position, by_segment = (declared.back, declared.ahead) != _ALL, declared.same_segment
    band = _within(declared.back, T), _within(declared.ahead, T)
    # Sort by position: with padding between tokens, a window of indices would cover fewer tokens.
    q_order = k_order = None
    if band[0] is not None:
      q_order, k_order = (order(lambda info: info.positions, info) for info in (q, k))
    (q_BTNH, q), (k_BSKH, v_BSKH, k) = (
      reorder((q_BTNH, q), q_order),
      reorder((k_BSKH, v_BSKH, k), k_order),
    )
    rows, size = _tiled(T, self.queries)
    # In a band every query needs a key, including padding.
    columns, width = _tiled(max(S, rows) if by_position else S, self.keys)
    ids = _ids(q, _NO_QUERY, rows, by_segment), _ids(k, _NO_KEY, columns, by_segment)
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
    return reorder(y_BTNH.astype(v_BSKH.dtype), q_order and q_order.back)

  def _over_mesh(
    self,
    x: tuple[jax.Array, ...],
    ids: tuple[jax.Array, ...],
    sink_N: jax.Array,
    schedule: '_Schedule',
  ) -> jax.Array:
    """Return y_BNTH for x = (q_BNTH, k_BKSH, v_BKSH), sharded over the mesh."""
    (B, N), K = x[0].shape[:2], x[1].shape[1]
    over = split(B, N, K)

    def local(x: tuple[jax.Array, ...], ids: tuple[jax.Array, ...], sink_N: jax.Array) -> jax.Array:
      q_BNTH, k_BKSH, v_BKSH = x
      args = q_BNTH, over.local(k_BKSH), over.local(v_BKSH), *ids, sink_N
      if self.interpret is not None:
        return schedule.run(self.interpret, *args)
      # Depends on the platform that the program is compiled for, not on the current backend.
      compiled, interpreted = (
        lambda *args, how=how: schedule.run(how, *args) for how in (False, True)
      )
      return jax.lax.platform_dependent(*args, tpu=compiled, default=interpreted)

    if not over.rows and not over.heads:
      return local(x, ids, sink_N)
    q_spec, kv_spec = jax.P(over.rows, over.heads), jax.P(over.rows, over.kv_heads)
    specs: Any = ((q_spec, kv_spec, kv_spec), jax.P(over.rows), jax.P(over.heads))
    return jax.shard_map(local, in_specs=specs, out_specs=q_spec, check_vma=False)(x, ids, sink_N)


@dataclasses.dataclass(frozen=True)
class _Schedule:
  """The static options of a kernel call.

  Attributes:
    band: the maximum distance back and ahead; None: no maximum.
    size: the number of queries in a tile.
    width: the number of keys in a tile.
    cap: the score cap, or None.
  """

  band: tuple[int | None, int | None]
  size: int
  width: int
  cap: float | None

  def run(self, interpret: bool, q_BNTH, k_BKSH, v_BKSH, q_ids_BT, k_ids_BS, sink_N) -> jax.Array:
    """Return y_BNTH."""
    # Imported here, because it is slow.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

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
    row = lambda q_NTH, k_KSH, v_KSH, q_ids_T, k_ids_S: kernel(
      q_NTH, k_KSH, v_KSH, splash.SegmentIds(q_ids_T, k_ids_S), sink_N
    )
    return jax.vmap(row)(q_BNTH, k_BKSH, v_BKSH, q_ids_BT, k_ids_BS)


def _within(distance: int | None, n: int) -> int | None:
  """Return the distance, or None if it excludes no pair of a sequence of n tokens."""
  return None if distance is None or distance >= n - 1 else distance


def _tiled(n: int, most: int) -> tuple[int, int]:
  """Return n padded to whole tiles, and the tile size: as even as possible, up to `most`."""
  count = -(-n // most)
  size = -(-n // (count * _LANES)) * _LANES
  return count * size, size


def _ids(info: TokenInfo, padding: int, n: int, by_segment: bool) -> jax.Array:
  """Return the segment ids of n tokens, with padding.

  They are all equal if the mask allows pairs across segments.
  """
  segment = jnp.zeros_like(info.segment_ids)
  if by_segment:
    segment = jnp.where(info.segment_ids > 0, info.segment_ids, padding)
  widths = [(0, 0), (0, n - segment.shape[1])]
  return jnp.pad(segment.astype(jnp.int32), widths, constant_values=padding)
