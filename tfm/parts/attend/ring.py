"""Attention over a sequence that is split over devices, by passing keys around a ring."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core.axes import device_count, split_axes
from tfm.core.closures import convert
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.attend.blockwise import Blockwise
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.split import sequence_axes
from tfm.parts.attend.tiles import (
  Operands,
  Problem,
  forward,
  gradients,
  operands,
  plus,
  tile_sizes,
  tiles,
  untiled,
)
from tfm.parts.term import sum_terms
from tfm.parts.tokeninfo import TokenInfo


@dataclasses.dataclass(frozen=True)
class Ring(Attend):
  """Flash attention with keys and values that rotate between devices (arXiv:2310.01889).

  Each device holds a block of the queries, keys and values of every sequence. In each of n steps
  it attends to one block of keys with the tiles of `Blockwise`, and passes the block on to its
  neighbour. Masks and biases use the positions and segment ids of the block, so every mask, bias,
  sink, score cap and dropout gives the result of one device. These ids of all keys are on every
  device. The backward pass rotates keys and values again, with their gradients, so no device ever
  holds all of them.

  It applies if the rules of the mesh split the axis T (`mesh.sequence`). Otherwise it is
  `Blockwise`. If the devices do not divide the keys, as in cross-attention to an image, each device
  holds all keys and nothing rotates.

  A device sends 2 B S K H numbers forward and 4 B S K H backward. Memory is that of `Blockwise` for
  T / n queries and S / n keys. Masked-out tiles are skipped, but all devices wait for the busiest:
  a causal mask over n devices costs up to 2 n / (n + 1) times its share.

  Attributes:
    queries: the number of queries in a tile.
    keys: the number of keys in a tile.
  """

  queries: int = 256
  keys: int = 256

  def check(self) -> Iterator[str]:
    yield from Blockwise(self.queries, self.keys).check()

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    names = sequence_axes(T)
    if not names:
      return Blockwise(self.queries, self.keys)(q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce)
    n = device_count(names)
    blocks = n if S % n == 0 else 1
    sizes = tile_sizes(self.queries, self.keys, T // n, S // blocks)
    functions = _Functions.of(scores, q_BTNH, k_BSKH, q, k, sizes)

    def local(q_BTNH, k_BSKH, v_BSKH, q_info, k_info, arrays):
      (bias_arrays, content_arrays), sink_N, tables, drop = arrays
      bias, content = functions.bound(bias_arrays[1], content_arrays[1])
      own = dataclasses.replace(
        scores, sink_N=sink_N, value_tables=_with_tables(scores.value_tables, tables)
      )
      problem = Problem(own, bias, content, S // blocks, k_BSKH.shape[2], jnp.dtype(reduce))
      consts = bias_arrays[0], content_arrays[0]
      x = operands(q_BTNH, k_BSKH, v_BSKH, consts, own, sizes, reduce)
      device = jax.lax.axis_index(names)
      keys = _Keys(_block_tiles(k_info, blocks, sizes[1]), device if blocks > 1 else jnp.int32(0))
      if drop is not None:
        query_1T = (device * (T // n) + jnp.arange(T // n, dtype=jnp.int32))[None]
        drop = dataclasses.replace(drop, query_BT=query_1T)
      y = _ring(problem, names, blocks)(x, tiles(q_info, sizes[0]), keys, drop)
      return untiled(y, T // n)

    queries, whole = jax.P(None, names), jax.P()
    keys = queries if blocks > 1 else whole
    specs = queries, keys, keys, queries, whole, whole
    split = jax.shard_map(
      local,
      in_specs=specs,
      out_specs=queries,
      axis_names={*names, *split_axes('L')},
      check_vma=False,
    )
    tables = tuple(vectors.table_UH for vectors in scores.value_tables)
    arrays = functions.arrays, scores.sink_N, tables, scores.drop
    return split(q_BTNH, k_BSKH, v_BSKH, q, k, arrays)


class _Keys(NamedTuple):
  """The token info of all keys, which is small enough for every device.

  Attributes:
    info: the token info of each block of keys, in tiles.
    first: the block of this device.
  """

  info: TokenInfo
  first: jax.Array

  def after(self, step: jax.Array, n: int, size: int) -> tuple[TokenInfo, jax.Array]:
    """Return the token info and the indices of the keys that a device holds after some rotations.

    Args:
      step: the number of rotations.
      n: the number of blocks.
      size: the number of keys in a block.

    Returns:
      (token info in tiles, indices `[1, S]`).
    """
    block = (self.first - step) % n
    index_1S = (block * size + jnp.arange(size, dtype=jnp.int32))[None]
    return jax.tree.map(lambda a: a[block], self.info), index_1S


def _block_tiles(info: TokenInfo, blocks: int, width: int) -> TokenInfo:
  """Return the token info of keys, `[B, S, ...]`, in tiles of each block."""
  size = info.positions.shape[1] // blocks
  part = lambda i: jax.tree.map(lambda a: a[:, i * size : (i + 1) * size], info)
  each = [tiles(part(i), width) for i in range(blocks)]
  return jax.tree.map(lambda *a: jnp.stack(a), *each)


class _Functions(NamedTuple):
  """The biases and content terms of a call, and the arrays that they close over.

  Attributes:
    bias: `(smooth, fixed, tile) -> bias`, or None.
    content: the same for content terms.
    arrays: the (smooth, fixed) arrays of both.
  """

  bias: Callable[..., jax.Array] | None
  content: Callable[..., jax.Array] | None
  arrays: tuple[tuple[Any, Any], tuple[Any, Any]]

  @classmethod
  def of(
    cls,
    scores: Scores,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    q: TokenInfo,
    k: TokenInfo,
    sizes: tuple[int, int],
  ) -> '_Functions':
    """Return the functions of a call.

    Args:
      scores: how scores are formed.
      q_BTNH: queries.
      k_BSKH: keys.
      q: the token info of queries.
      k: the token info of keys.
      sizes: the numbers of queries and keys in a tile.

    Returns:
      The functions, for tiles of these sizes.
    """
    cut = lambda tree, size: jax.tree.map(
      lambda a: jax.ShapeDtypeStruct((a.shape[0], size, *a.shape[2:]), a.dtype), tree
    )
    heads, tile = (
      (cut(q_BTNH, sizes[0]), cut(k_BSKH, sizes[1])),
      (cut(q, sizes[0]), cut(k, sizes[1])),
    )
    bias, of_bias = _converted(scores.offsets, *tile)
    content, of_content = _converted(tuple(map(sum_terms, scores.contents)), *heads, *tile)
    return cls(bias, content, (of_bias, of_content))

  def bound(self, fixed_bias: Any, fixed_content: Any) -> tuple[Any, Any]:
    """Return both functions of (smooth arrays, tile), given the other arrays."""
    bind = lambda f, fixed: f and (lambda smooth, *tile: f(smooth, fixed, *tile))
    return bind(self.bias, fixed_bias), bind(self.content, fixed_content)


def _converted(functions: tuple[Callable[..., jax.Array], ...], *tile: Any) -> tuple[Any, Any]:
  """Return the sum of the functions, and the (smooth, fixed) arrays that it closes over."""
  if not functions:
    return None, ([], [])
  total = lambda *tile: sum(f(*tile) for f in functions)
  pure, smooth, fixed = convert(total, *tile, any_mesh=True)
  return pure, (smooth, fixed)


def _with_tables(value_tables: tuple[Any, ...], tables: tuple[jax.Array, ...]) -> tuple[Any, ...]:
  pairs = zip(value_tables, tables, strict=True)
  return tuple(dataclasses.replace(vectors, table_UH=table) for vectors, table in pairs)


def _ring(problem: Problem, names: tuple[str, ...], n: int) -> Callable[..., jax.Array]:
  """Return attention to all blocks of keys, with a custom gradient.

  It maps (operands, query infos, key infos, dropout) of this device to y
  `[tiles, B, K, G, queries, H]`.
  """

  @jax.custom_vjp
  def attend(x: Operands, q_info, keys, drop):
    return run(x, q_info, keys, drop)[0]

  def run(x, q_info, keys, drop):
    y, lse = _forward(problem, names, n, x, q_info, keys, drop)
    y = y.astype(x.v.dtype)
    return y, (x, q_info, keys, drop, y, lse)

  def backward(residuals, g):
    x, q_info, keys, drop, y, lse = residuals
    sums = _gradients(problem, names, n, x, q_info, keys, drop, (y, lse), g)
    return jax.tree.map(lambda sum, of: sum.astype(of.dtype), sums, x), None, None, None

  attend.defvjp(run, backward)
  return attend


def _forward(problem: Problem, names, n: int, x: Operands, q_info, keys, drop):
  """Return the output in dtype `reduce`, and the log-sum-exp over all keys and the sink."""
  tiles_, B, K, G, size, _ = x.q.shape
  # Half of the lowest float represents the log of 0, as in `forward`.
  low = jnp.full((1, 1, K, G, 1, 1), jnp.finfo(problem.reduce).min / 2, problem.reduce)
  lse = jnp.broadcast_to(low if x.sink is None else x.sink[None], (tiles_, B, K, G, size, 1))
  y = jnp.zeros((tiles_, B, K, G, size, x.v.shape[-1]), problem.reduce)

  def step(state, i):
    (k, v), y, lse = state
    k_info, key_1S = keys.after(i, n, problem.S)
    own = x._replace(k=k, v=v, sink=None)
    y_block, lse_block, _ = forward(problem, own, q_info, k_info, _at(drop, key_1S))
    total = jnp.logaddexp(lse, lse_block)
    y = y * jnp.exp(lse - total) + y_block * jnp.exp(lse_block - total)
    return (_rotated(state[0], names, n), y, total), None

  state, _ = jax.lax.scan(step, ((x.k, x.v), y, lse), jnp.arange(n, dtype=jnp.int32))
  return state[1:]


def _gradients(problem: Problem, names, n: int, x: Operands, q_info, keys, drop, results, g):
  """Return the gradients of the operands of this device, in dtype `reduce`."""
  y, lse = results
  of_output = g, jnp.zeros_like(lse)

  def step(state, i):
    (k, v, dk, dv), others = state
    k_info, key_1S = keys.after(i, n, problem.S)
    own = x._replace(k=k, v=v, sink=None)
    visits = problem.visits(q_info, k_info)
    new = gradients(problem, own, q_info, k_info, _at(drop, key_1S), (y, lse, visits), of_output)
    moved = k, v, dk + new.k, dv + new.v
    return (_rotated(moved, names, n), plus(others, (new.q, new.consts, new.tables))), None

  zeros = lambda tree: jax.tree.map(lambda a: jnp.zeros(a.shape, problem.reduce), tree)
  moved = x.k, x.v, zeros(x.k), zeros(x.v)
  start = moved, zeros((x.q, x.consts, x.tables))
  state, _ = jax.lax.scan(step, start, jnp.arange(n, dtype=jnp.int32))
  (*_, dk, dv), (dq, consts, tables) = state
  sink = None
  if x.sink is not None:
    inner = jnp.sum(g.astype(problem.reduce) * y.astype(problem.reduce), -1, keepdims=True)
    sink = -jnp.sum(jnp.exp(x.sink[None] - lse) * inner, (0, 1, 4))[None, ..., None]
  return Operands(dq, dk, dv, consts, sink, tables)


def _rotated(block: Any, names: tuple[str, ...], n: int) -> Any:
  """Return the block of the previous device; after n rotations each device has its own again."""
  to_next = [(i, (i + 1) % n) for i in range(n)]
  return block if n == 1 else jax.tree.map(lambda a: jax.lax.ppermute(a, names, to_next), block)


def _at(drop: Dropout | None, key_1S: jax.Array) -> Dropout | None:
  """Return the dropout of keys with these indices."""
  return None if drop is None else dataclasses.replace(drop, key_BS=key_1S)
