"""Functions of infos as a kernel runs them: on a tile, for one head, in two dimensions, their
arrays as scalars.
"""

from collections.abc import Callable, Sequence
import contextlib
import math
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp

from tfm.core.closures import bind, flatten, read
from tfm.parts.tokeninfo import TokenInfo

#: The longest table that is looked up: the sums of its gradient, 128 an entry, are kept on the
#: chip.
LONGEST = 4096

# What does to a tile's numbers what it does to all, and can be said to a TPU's vector unit.
_ELEMENTWISE = frozenset([
  'abs', 'add', 'and', 'ceil', 'clamp', 'cos', 'div', 'eq', 'exp', 'exp2', 'floor', 'ge', 'gt',
  'integer_pow',
  'le', 'log', 'log1p', 'logistic', 'lt', 'max', 'min', 'mul', 'ne', 'neg', 'not', 'or', 'pow',
  'rem', 'round',
  'rsqrt', 'select_n', 'shift_left', 'shift_right_arithmetic', 'shift_right_logical', 'sign', 'sin',
  'sqrt',
  'square', 'stop_gradient', 'sub', 'tanh', 'xor',
])  # fmt: skip


class Unfit(Exception):
  """Says what a function does that cannot be done on a tile."""


class Tile(NamedTuple):
  """A scalar, a row, a column or all of a tile, and which axis of B, N, T, S each dimension of the
  whole array is.
  """

  x: jax.Array
  axes: tuple[str | None, ...]


class Tiled(NamedTuple):
  """A function of infos to be run on tiles, in float32 and int32.

  `arrays` are the numbers that it has from elsewhere, found once outside of the kernel: `[N or 1,
  1]`, or tables `[N or 1, U]`."""

  steps: tuple[Any, ...]
  infos: tuple[Any, ...]
  result: Any
  out: str
  heads: int
  arrays: list[jax.Array]
  # Which of `arrays` a variable's numbers along an axis are; filled on the first run.
  leaves: dict[tuple[Any, int | None], int]
  known: dict[Any, jax.Array]

  def __call__(
    self,
    q: Sequence[jax.Array],
    k: Sequence[jax.Array],
    scalar: Callable[[int], jax.Array],
    lookup: Callable[[int, jax.Array], jax.Array],
  ) -> jax.Array:
    """The tile for the leaves of two infos, queries and keys along different axes of it.

    `scalar(i)` is the head's number in arrays[i], `lookup(i, index)` a tile of its numbers there.
    """
    leaves = [Tile(x, ('B', 'T')) for x in q] + [Tile(x, ('B', 'S')) for x in k]
    env = dict(zip(self.infos, leaves, strict=True))

    def value(atom: Any) -> Tile:
      if isinstance(atom, core.Literal):
        constant = jnp.asarray(atom.val)
        return Tile(constant.astype(narrow(constant.dtype)), (None,) * constant.ndim)
      if atom in env:
        return env[atom]
      known = self.known[atom]
      if known.size == 1 and not isinstance(known, jax.core.Tracer):
        return Tile(jnp.asarray(known.item(), narrow(known.dtype)), (None,) * known.ndim)
      x = _typed(scalar(self._leaf(atom, None)), known.dtype)
      return Tile(x, tuple('N' if n > 1 else None for n in known.shape))

    for eqn in self.steps:
      if eqn.primitive.name == 'gather':
        env[eqn.outvars[0]] = self._gathered(eqn, value, lookup)
      else:
        env[eqn.outvars[0]] = _stepped(eqn, value)
    x, axes = value(self.result)
    if len(axes) != len(self.out) or any(
      a not in (None, w) for a, w in zip(axes, self.out, strict=True)
    ):
      raise Unfit(f'gives an array of axes {_spelt(axes)} instead of {_spelt(tuple(self.out))}')
    return x

  @property
  def tables(self) -> list[bool]:
    """Which of `arrays` are looked up."""
    return [axis is not None for _, axis in self.leaves]

  def _leaf(self, var: Any, axis: int | None) -> int:
    """The place in `arrays` of the numbers of `var`: one a head, or as many as its `axis` is long."""
    if (var, axis) not in self.leaves:
      shape = self.known[var].shape
      U = 1 if axis is None else shape[axis]
      if math.prod(shape) not in (U, U * self.heads):
        raise Unfit(f'reads an array of shape {shape}, which is more than some numbers a head')
      if U > LONGEST:
        raise Unfit(f'looks up a table of {U:,} entries, and a chip holds the sums of {LONGEST:,}')
      self.leaves[var, axis] = len(self.leaves)
    return self.leaves[var, axis]

  def _gathered(
    self, eqn: Any, value: Callable[[Any], Tile], lookup: Callable[[int, jax.Array], jax.Array]
  ) -> Tile:
    table, index = eqn.invars
    numbers, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
    if table not in self.known:
      raise Unfit('looks up what itself depends on the tokens')
    (axis, *more) = numbers.start_index_map
    whole = all(
      n == size
      for i, (n, size) in enumerate(zip(table.aval.shape, sizes, strict=True))
      if i != axis
    )
    if (
      more or numbers.collapsed_slice_dims != (axis,) or not whole or numbers.operand_batching_dims
    ):
      raise Unfit('looks up slices of an array')
    x, axes = value(index)
    given = iter(axes[:-1])
    rest = iter('N' if n > 1 else None for i, n in enumerate(table.aval.shape) if i != axis)
    places = range(len(eqn.outvars[0].aval.shape))
    out = tuple(next(rest) if i in numbers.offset_dims else next(given) for i in places)
    found = lookup(self._leaf(table, axis), jnp.clip(x, 0, table.aval.shape[axis] - 1))
    return Tile(_typed(found, self.known[table].dtype), out)


def tiled(
  fn: Callable[[TokenInfo, TokenInfo], jax.Array], q: TokenInfo, k: TokenInfo, heads: int, out: str
) -> Tiled:
  """`fn` of infos like q `[B, T]` and k `[B, S]`, with results of axes `out` ('BTS', 'BNTS'), to be
  run on tiles.

  Raises: Unfit if it cannot be.
  """
  eqns, infos, (result,), known = flatten(fn, q, k)
  steps: list[Any] = []
  waiting = set(infos)
  for eqn in eqns:
    given = [read(known, a) for a in eqn.invars if isinstance(a, core.Literal) or a in known]
    here = len(given) == len(eqn.invars) and not any(
      a in waiting for a in eqn.invars if not isinstance(a, core.Literal)
    )
    # What is spread over the tile is spread in the kernel, unless it turns out to be a table.
    grows = (
      eqn.primitive.name == 'broadcast_in_dim'
      and eqn.outvars[0].aval.size > eqn.invars[0].aval.size
    )
    if here:
      constant = not any(isinstance(x, jax.core.Tracer) for x in given)
      with jax.ensure_compile_time_eval() if constant else contextlib.nullcontext():
        known.update(zip(eqn.outvars, bind(eqn, given), strict=True))
    if not here or grows:
      steps.append(eqn)
      waiting.update(eqn.outvars)
  steps = _needed(steps, result, known)
  made = Tiled(tuple(steps), tuple(infos), result, out, heads, [], {}, known)
  dtype = lambda i: handed(known[list(made.leaves)[i][0]].dtype)
  scalar, lookup = lambda i: jnp.zeros((), dtype(i)), lambda i, x: jnp.zeros(x.shape, dtype(i))
  row, column = jax.ShapeDtypeStruct((1, 3), jnp.int32), jax.ShapeDtypeStruct((2, 1), jnp.int32)
  like = lambda info, x: [
    jax.ShapeDtypeStruct(x.shape, narrow(a.dtype)) for a in jax.tree.leaves(info)
  ]
  jax.eval_shape(lambda q, k: made(q, k, scalar, lookup), like(q, column), like(k, row))
  made.arrays.extend(_by_head(known[var], axis) for var, axis in made.leaves)
  return made


def _needed(steps: list[Any], result: Any, known: dict[Any, jax.Array]) -> list[Any]:
  """The steps that lead to the result."""
  wanted, kept = {result}, []
  for eqn in reversed(steps):
    if any(v in wanted for v in eqn.outvars):
      table = eqn.primitive.name == 'gather' and eqn.invars[0] in known
      wanted.update(a for a in eqn.invars[1 if table else 0 :] if not isinstance(a, core.Literal))
      kept.append(eqn)
  return kept[::-1]


def _by_head(array: jax.Array, axis: int | None) -> jax.Array:
  """`[N or 1, U]`, of the numbers along `axis`, as they are `handed` over."""
  array = (
    jax.lax.bitcast_convert_type(array, jnp.int32)
    if array.dtype == jnp.uint32
    else array.astype(handed(array.dtype))
  )
  U = 1 if axis is None else array.shape[axis]
  return (array if axis is None else jnp.moveaxis(array, axis, -1)).reshape(-1, U)


def narrow(dtype: Any) -> Any:
  """The dtype of its kind that kernels compute in."""
  if jnp.issubdtype(dtype, jnp.floating):
    return jnp.float32
  return dtype if dtype in (jnp.bool_, jnp.uint32) else jnp.int32


def handed(dtype: Any) -> Any:
  """The dtype in which the numbers of an array are handed to a kernel."""
  return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else jnp.int32


def _typed(x: jax.Array, dtype: Any) -> jax.Array:
  """Numbers of an array of `dtype`, which come as they are `handed` over."""
  if dtype == jnp.bool_:
    return x != 0
  return jax.lax.bitcast_convert_type(x, jnp.uint32) if dtype == jnp.uint32 else x


def spread(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """x broadcast to `shape`; truth as numbers, since a TPU's vectors of bits cannot be."""
  if x.shape == shape:
    return x
  if x.dtype == jnp.bool_:
    return jnp.broadcast_to(jnp.where(x, jnp.int32(1), jnp.int32(0)), shape) != 0
  return jnp.broadcast_to(x, shape)


def _stepped(eqn: Any, value: Callable[[Any], Tile]) -> Tile:
  name, params, tiles = eqn.primitive.name, eqn.params, [value(a) for a in eqn.invars]
  if name in _ELEMENTWISE:
    shape = jnp.broadcast_shapes(*(t.x.shape for t in tiles))
    xs = [spread(t.x, shape) for t in tiles]
    return Tile(_sign(*xs) if name == 'sign' else eqn.primitive.bind(*xs, **params), _merged(tiles))
  if not tiles or name not in (
    'broadcast_in_dim',
    'convert_element_type',
    'copy',
    'reshape',
    'squeeze',
    'transpose',
  ):
    raise Unfit(f'uses {name}')
  x, axes = tiles[0]
  if name == 'convert_element_type':
    return Tile(x.astype(narrow(params['new_dtype'])), axes)
  if name == 'broadcast_in_dim':
    place = dict(zip(params['broadcast_dimensions'], axes, strict=True))
    return Tile(x, tuple(place.get(i) for i in range(len(params['shape']))))
  if name == 'transpose':
    return Tile(x, tuple(axes[i] for i in params['permutation']))
  if name == 'copy':
    return tiles[0]
  old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
  if [n for n in old if n > 1] != [n for n in new if n > 1]:
    raise Unfit(f'reshapes {old} to {new}')
  long = iter(a for n, a in zip(old, axes, strict=True) if n > 1)
  return Tile(x, tuple(next(long) if n > 1 else None for n in new))


def _sign(x: jax.Array) -> jax.Array:
  # Mosaic's own asks which TPU is at hand, and none is when a program is compiled for another
  # machine.
  return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def _merged(tiles: Sequence[Tile]) -> tuple[str | None, ...]:
  """The axes of what meets element by element."""
  out: list[str | None] = []
  for met in zip(*(t.axes for t in tiles if t.axes), strict=True):
    if len(names := {a for a in met if a}) > 1:
      raise Unfit(f'has the axes {" and ".join(sorted(names))} meet in one')
    out.append(names.pop() if names else None)
  return tuple(out)


def _spelt(axes: tuple[str | None, ...]) -> str:
  return f'[{", ".join(a or "1" for a in axes)}]'
