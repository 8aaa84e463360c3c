"""An interpreter that runs functions of token infos on tiles, inside a kernel."""

from collections.abc import Callable, Sequence
import contextlib
import math
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp

from tfm.core.closures import bind, flatten, read
from tfm.parts.tokeninfo import TokenInfo

#: The maximum number of entries of a table. The sums of its gradient, 128 numbers per entry, are in
#: vector memory.
MAX_TABLE = 4096

# Elementwise primitives that the vector unit of a TPU supports.
_ELEMENTWISE = frozenset([
  'abs', 'add', 'and', 'ceil', 'clamp', 'cos', 'div', 'eq', 'exp', 'exp2', 'floor', 'ge', 'gt',
  'integer_pow',
  'le', 'log', 'log1p', 'logistic', 'lt', 'max', 'min', 'mul', 'ne', 'neg', 'not', 'or', 'pow',
  'rem', 'round',
  'rsqrt', 'select_n', 'shift_left', 'shift_right_arithmetic', 'shift_right_logical', 'sign', 'sin',
  'sqrt',
  'square', 'stop_gradient', 'sub', 'tanh', 'xor',
])  # fmt: skip

_RESHAPING = ('broadcast_in_dim', 'convert_element_type', 'copy', 'reshape', 'squeeze', 'transpose')


class Unsupported(Exception):
  """A function cannot run on tiles. The message completes "the mask ..."."""


class Tile(NamedTuple):
  """A value on a tile.

  Attributes:
    x: a scalar, a row, a column or a whole tile.
    axes: for each axis of the original value, which of B, N, T and S it is; None: size 1.
  """

  x: jax.Array
  axes: tuple[str | None, ...]


class Tiled(NamedTuple):
  """A function of token infos that runs on tiles, in float32 and int32.

  Attributes:
    steps: the equations to run on each tile.
    infos: the variables of the token info leaves, queries first.
    result: the variable of the result.
    out: the axes of the result, such as 'BNTS'.
    heads: N, the number of query heads.
    arrays: the values from outside that the steps need, computed once: scalars per head `[N or 1,
      1]` or tables `[N or 1, U]`.
    leaves: the index in `arrays` of each (variable, axis), filled on the first run.
    known: the values of variables that do not depend on the token infos.
  """

  steps: tuple[Any, ...]
  infos: tuple[Any, ...]
  result: Any
  out: str
  heads: int
  arrays: list[jax.Array]
  leaves: dict[tuple[Any, int | None], int]
  known: dict[Any, jax.Array]

  def __call__(
    self,
    q: Sequence[jax.Array],
    k: Sequence[jax.Array],
    scalar: Callable[[int], jax.Array],
    lookup: Callable[[int, jax.Array], jax.Array],
  ) -> jax.Array:
    """Run the function on a tile.

    Args:
      q: the leaves of the queries' token info, along one dimension of the tile.
      k: the leaves of the keys' token info, along the other dimension.
      scalar: `scalar(i)` returns this head's value of `arrays[i]`.
      lookup: `lookup(i, index)` returns this head's entries of `arrays[i]` at a tile of indices.

    Returns:
      The tile of the result.
    """
    leaves = [Tile(x, ('B', 'T')) for x in q]
    leaves += [Tile(x, ('B', 'S')) for x in k]
    env = dict(zip(self.infos, leaves, strict=True))

    def value(atom: Any) -> Tile:
      if isinstance(atom, core.Literal):
        constant = jnp.asarray(atom.val)
        return Tile(constant.astype(compute_dtype(constant.dtype)), (None,) * constant.ndim)
      if atom in env:
        return env[atom]
      known = self.known[atom]
      if known.size == 1 and not isinstance(known, jax.core.Tracer):
        return Tile(jnp.asarray(known.item(), compute_dtype(known.dtype)), (None,) * known.ndim)
      x = _from_operand(scalar(self._array_index(atom, None)), known.dtype)
      return Tile(x, _head_axes(known.shape))

    for eqn in self.steps:
      if eqn.primitive.name == 'gather':
        env[eqn.outvars[0]] = self._run_gather(eqn, value, lookup)
      else:
        env[eqn.outvars[0]] = _run_step(eqn, value)
    x, axes = value(self.result)
    matches = len(axes) == len(self.out)
    if not matches or any(a not in (None, w) for a, w in zip(axes, self.out, strict=True)):
      expected = _format_axes(tuple(self.out))
      raise Unsupported(f'returns axes {_format_axes(axes)} instead of {expected}')
    return x

  @property
  def tables(self) -> list[bool]:
    """Which of `arrays` are tables."""
    return [axis is not None for _, axis in self.leaves]

  def _array_index(self, var: Any, axis: int | None) -> int:
    """Return the index in `arrays` of a variable: a scalar per head, or a table along `axis`."""
    if (var, axis) not in self.leaves:
      shape = self.known[var].shape
      U = 1 if axis is None else shape[axis]
      if math.prod(shape) not in (U, U * self.heads):
        raise Unsupported(
          f'reads an array of shape {shape}, which is not a scalar or table per head'
        )
      if U > MAX_TABLE:
        raise Unsupported(f'uses a table of {U:,} entries, more than the maximum of {MAX_TABLE:,}')
      self.leaves[var, axis] = len(self.leaves)
    return self.leaves[var, axis]

  def _run_gather(
    self, eqn: Any, value: Callable[[Any], Tile], lookup: Callable[[int, jax.Array], jax.Array]
  ) -> Tile:
    table, index = eqn.invars
    numbers, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
    if table not in self.known:
      raise Unsupported('uses a table that depends on the tokens')
    (axis, *more) = numbers.start_index_map
    expected = list(table.aval.shape)
    expected[axis] = sizes[axis]
    whole = list(sizes) == expected
    if (
      more or numbers.collapsed_slice_dims != (axis,) or not whole or numbers.operand_batching_dims
    ):
      raise Unsupported('looks up slices of an array')
    x, axes = value(index)
    shape = table.aval.shape
    index_axes, table_axes = iter(axes[:-1]), iter(_head_axes(shape[:axis] + shape[axis + 1 :]))
    out: list[str | None] = []
    for i in range(len(eqn.outvars[0].aval.shape)):
      out.append(next(table_axes if i in numbers.offset_dims else index_axes))
    y = lookup(self._array_index(table, axis), jnp.clip(x, 0, shape[axis] - 1))
    return Tile(_from_operand(y, self.known[table].dtype), tuple(out))


def tiled(
  fn: Callable[[TokenInfo, TokenInfo], jax.Array], q: TokenInfo, k: TokenInfo, heads: int, out: str
) -> Tiled:
  """Convert a function of token infos, to run it on tiles.

  Args:
    fn: the function.
    q: token info like that of queries, `[B, T]`.
    k: token info like that of keys, `[B, S]`.
    heads: N, the number of query heads.
    out: the axes of the result, 'BTS' or 'BNTS'.

  Returns:
    The converted function.

  Raises:
    Unsupported: if the function cannot run on tiles.
  """
  eqns, infos, (result,), known = flatten(fn, q, k)
  steps: list[Any] = []
  waiting = set(infos)
  for eqn in eqns:
    given = [read(known, a) for a in eqn.invars if isinstance(a, core.Literal) or a in known]
    variables = [a for a in eqn.invars if not isinstance(a, core.Literal)]
    outside = len(given) == len(eqn.invars) and not any(a in waiting for a in variables)
    # Broadcasts run in the kernel, unless the result is a table.
    grows = (
      eqn.primitive.name == 'broadcast_in_dim'
      and eqn.outvars[0].aval.size > eqn.invars[0].aval.size
    )
    if outside:
      constant = not any(isinstance(x, jax.core.Tracer) for x in given)
      with jax.ensure_compile_time_eval() if constant else contextlib.nullcontext():
        known.update(zip(eqn.outvars, bind(eqn, given), strict=True))
    if not outside or grows:
      steps.append(eqn)
      waiting.update(eqn.outvars)
  steps = _needed_steps(steps, result, known)
  made = Tiled(tuple(steps), tuple(infos), result, out, heads, [], {}, known)
  dtype = lambda i: operand_dtype(known[list(made.leaves)[i][0]].dtype)
  scalar, lookup = lambda i: jnp.zeros((), dtype(i)), lambda i, x: jnp.zeros(x.shape, dtype(i))
  row, column = jax.ShapeDtypeStruct((1, 3), jnp.int32), jax.ShapeDtypeStruct((2, 1), jnp.int32)
  like = lambda info, x: [
    jax.ShapeDtypeStruct(x.shape, compute_dtype(a.dtype)) for a in jax.tree.leaves(info)
  ]
  jax.eval_shape(lambda q, k: made(q, k, scalar, lookup), like(q, column), like(k, row))
  made.arrays.extend(_by_head(known[var], axis) for var, axis in made.leaves)
  return made


def _needed_steps(steps: list[Any], result: Any, known: dict[Any, jax.Array]) -> list[Any]:
  """Return the steps that the result depends on."""
  needed, steps_kept = {result}, []
  for eqn in reversed(steps):
    if any(v in needed for v in eqn.outvars):
      table = eqn.primitive.name == 'gather' and eqn.invars[0] in known
      inputs = eqn.invars[1:] if table else eqn.invars
      needed.update(a for a in inputs if not isinstance(a, core.Literal))
      steps_kept.append(eqn)
  return steps_kept[::-1]


def _by_head(array: jax.Array, axis: int | None) -> jax.Array:
  """Return `[N or 1, U]`, the values along `axis` per head, in their `operand_dtype`."""
  if array.dtype == jnp.uint32:
    array = jax.lax.bitcast_convert_type(array, jnp.int32)
  else:
    array = array.astype(operand_dtype(array.dtype))
  U = 1 if axis is None else array.shape[axis]
  return (array if axis is None else jnp.moveaxis(array, axis, -1)).reshape(-1, U)


def compute_dtype(dtype: Any) -> Any:
  """Return the dtype that kernels compute in for this dtype."""
  if jnp.issubdtype(dtype, jnp.floating):
    return jnp.float32
  return dtype if dtype in (jnp.bool_, jnp.uint32) else jnp.int32


def operand_dtype(dtype: Any) -> Any:
  """Return the dtype in which a kernel receives arrays of this dtype."""
  return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else jnp.int32


def _from_operand(x: jax.Array, dtype: Any) -> jax.Array:
  """Return values received in their `operand_dtype` as `dtype`."""
  if dtype == jnp.bool_:
    return x != 0
  return jax.lax.bitcast_convert_type(x, jnp.uint32) if dtype == jnp.uint32 else x


def broadcast(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Return x broadcast to `shape`.

  A TPU cannot broadcast vectors of bool, so these are broadcast as integers.
  """
  if x.shape == shape:
    return x
  if x.dtype == jnp.bool_:
    return jnp.broadcast_to(jnp.where(x, jnp.int32(1), jnp.int32(0)), shape) != 0
  return jnp.broadcast_to(x, shape)


def _run_step(eqn: Any, value: Callable[[Any], Tile]) -> Tile:
  name, params, tiles = eqn.primitive.name, eqn.params, [value(a) for a in eqn.invars]
  if name in _ELEMENTWISE:
    shape = jnp.broadcast_shapes(*(t.x.shape for t in tiles))
    xs = [broadcast(t.x, shape) for t in tiles]
    y = _sign(*xs) if name == 'sign' else eqn.primitive.bind(*xs, **params)
    return Tile(y, _merged_axes(tiles))
  if not tiles or name not in _RESHAPING:
    raise Unsupported(f'uses {name}')
  x, axes = tiles[0]
  if name == 'convert_element_type':
    return Tile(x.astype(compute_dtype(params['new_dtype'])), axes)
  if name == 'broadcast_in_dim':
    place = dict(zip(params['broadcast_dimensions'], axes, strict=True))
    return Tile(x, tuple(place.get(i) for i in range(len(params['shape']))))
  if name == 'transpose':
    return Tile(x, tuple(axes[i] for i in params['permutation']))
  if name == 'copy':
    return tiles[0]
  old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
  if _without_ones(old) != _without_ones(new):
    raise Unsupported(f'reshapes {old} to {new}')
  remaining = iter(a for n, a in zip(old, axes, strict=True) if n > 1)
  placed: list[str | None] = [None] * len(new)
  for i, n in enumerate(new):
    if n > 1:
      placed[i] = next(remaining)
  return Tile(x, tuple(placed))


def _without_ones(shape: Sequence[int]) -> list[int]:
  return [n for n in shape if n > 1]


def _sign(x: jax.Array) -> jax.Array:
  # Mosaic's own version queries the current TPU, which does not exist in ahead-of-time compilation.
  return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def _head_axes(shape: Sequence[int]) -> tuple[str | None, ...]:
  """Return the axes of an outside array, in which every axis of size > 1 is that of heads."""
  axes: list[str | None] = []
  for n in shape:
    axes.append('N' if n > 1 else None)
  return tuple(axes)


def _merged_axes(tiles: Sequence[Tile]) -> tuple[str | None, ...]:
  """Return the axes of an elementwise operation."""
  out: list[str | None] = []
  for met in zip(*(t.axes for t in tiles if t.axes), strict=True):
    if len(names := {a for a in met if a}) > 1:
      raise Unsupported(f'combines the axes {" and ".join(sorted(names))} elementwise')
    out.append(names.pop() if names else None)
  return tuple(out)


def _format_axes(axes: tuple[str | None, ...]) -> str:
  return f'[{", ".join(a or "1" for a in axes)}]'
