"""Moments of optimizers in 8 or 16 bits."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tfm.optim.base import Letters
from tfm.optim.layout import layout
from tfm.optim.rounding import random_bits, stochastic_round

#: The most values that share a scale.
BLOCK = 256
#: Arrays with fewer values, or with a shorter last axis, stay in float32.
_MIN_SIZE, _MIN_AXIS = 4096, 32


class Int8(NamedTuple):
  """An array in 8 bits, in blocks of its last axis (arXiv:2110.02861).

  Attributes:
    codes: The shape of the array, int8.
    scales: The largest magnitude of each block in float32, `[..., blocks]`.
  """

  codes: jax.Array
  scales: jax.Array


def block_size(size: int) -> int:
  """Return the number of values of a block, for a last axis of this size.

  It is at most 256. If possible it is 64 or more and divides a sixteenth of the axis, or else an
  eighth and so on. Then up to 16 devices that share the axis hold whole blocks. If no such number
  divides the axis, the last block is shorter.
  """
  if size <= BLOCK:
    return size
  for ways in (16, 8, 4, 2, 1):
    for block in range(BLOCK, BLOCK // 4 - 1, -1):
      if size % (ways * block) == 0:
        return block
  return BLOCK


def quantize(x: jax.Array, key: jax.Array, signed: bool) -> Int8:
  """Return float32 numbers in 8 bits, rounded up or down at random.

  With y = x / scale, a signed code is near 127 sign(y) |y|^(1/2), and a non-negative one near
  255 y^(1/4) - 128. So the first moment and the root of the second one have the same relative
  precision, finest near 0, without the table of the paper. The expected value is x, except that
  positive numbers of a second moment have at least the smallest positive code: 0 would make the
  update infinite.

  Args:
    x: Numbers of any shape.
    key: The key of the random bits.
    signed: Whether numbers may be negative.

  Returns:
    Codes and scales.
  """
  block = block_size(x.shape[-1])
  padded = jnp.pad(jnp.abs(x), [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % block)])
  scales = padded.reshape(*x.shape[:-1], -1, block).max(-1)
  y = jnp.abs(x) / _spread(jnp.where(scales > 0, scales, 1), x.shape[-1])
  power, top = (2, 127.0) if signed else (4, 255.0)
  low = jnp.floor(top * (jnp.sqrt(y) if signed else jnp.sqrt(jnp.sqrt(y))))
  share = (y * top**power - low**power) / ((low + 1) ** power - low**power)
  noise = random_bits(key, x.shape).astype(jnp.float32) / 2**16
  level = jnp.minimum(low + (noise < share), top)
  codes = jnp.sign(x) * level if signed else jnp.where(y > 0, jnp.maximum(level, 1), 0) - 128
  return Int8(codes.astype(jnp.int8), scales)


def dequantize(x: Int8, signed: bool) -> jax.Array:
  """Return numbers of `quantize` in float32."""
  codes = x.codes.astype(jnp.float32)
  root = codes / 127 if signed else jnp.square((codes + 128) / 255)
  return _spread(x.scales, codes.shape[-1]) * root * jnp.abs(root)


def _spread(scales: jax.Array, size: int) -> jax.Array:
  """Return the scale of each value of a last axis."""
  return jnp.repeat(scales, block_size(size), axis=-1)[..., :size]


def has_blocks(letters: str, shape: tuple[int, ...]) -> bool:
  """Return whether moments of a parameter may be in 8 bits.

  Vectors and small arrays are not worth their error: together they need little memory.
  """
  long = math.prod(shape) >= _MIN_SIZE and shape[-1] >= _MIN_AXIS
  return long and len(layout(letters).groups) >= 2


def in_dtypes(
  inner: optax.GradientTransformation,
  letters: Letters,
  mu: str | None = None,
  nu: str | None = None,
) -> optax.GradientTransformation:
  """Return an optimizer that stores moments in another dtype, and updates them in float32.

  bfloat16 and int8 are rounded at random. With rounding to the nearest number, v would never fall:
  b2 changes it by less than half the distance of two numbers.

  Args:
    inner: The optimizer. Its state has a `count`, and a tree of each moment.
    letters: The axis letters of each parameter.
    mu: The dtype of the first moment. Only int8 is stored here; see `optax_dtype`.
    nu: The dtype of the second moment, or None for that of the parameter.

  Returns:
    The optimizer. In int8, arrays without `has_blocks` are float32.
  """
  dtypes: dict[str, str] = {}
  if mu == 'int8':
    dtypes['mu'] = mu
  if nu is not None:
    dtypes['nu'] = nu

  def stored(state: Any, count: jax.Array) -> Any:
    return state._replace(
      **{name: _stored(getattr(state, name), letters, name, dtypes[name], count) for name in dtypes}
    )

  def init(params: Any) -> Any:
    state = inner.init(params)
    return stored(state, state.count)

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    wide = {name: _wide(getattr(state, name), name) for name in dtypes}
    updates, new = inner.update(grads, state._replace(**wide), params)
    return updates, stored(new, state.count)

  return optax.GradientTransformation(init, update)


def optax_dtype(dtype: str | None) -> str | None:
  """Return the dtype in which optax keeps a first moment during an update.

  It rounds bfloat16 to the nearest number, which suffices for an average over few steps.
  """
  return 'float32' if dtype == 'int8' else dtype


def _stored(tree: Any, letters: Letters, name: str, dtype: str, count: jax.Array) -> Any:
  """Return a tree of moments in a dtype, with new random bits for each leaf and step."""
  key = jax.random.fold_in(jax.random.key({'nu': 1, 'mu': 2}[name]), count)
  leaves, structure = jax.tree.flatten(tree)
  found: list[Any] = []
  for i, (x, letter) in enumerate(zip(leaves, jax.tree.leaves(letters), strict=True)):
    x, key_i = x.astype(jnp.float32), jax.random.fold_in(key, i)
    if dtype == 'bfloat16':
      found.append(stochastic_round(x, key_i))
    elif dtype == 'int8' and has_blocks(letter, x.shape):
      found.append(quantize(x, key_i, signed=name == 'mu'))
    else:
      found.append(x)
  return jax.tree.unflatten(structure, found)


def _wide(tree: Any, name: str) -> Any:
  """Return a tree of stored moments in float32."""

  def one(x: Any) -> jax.Array:
    if isinstance(x, Int8):
      return dequantize(x, signed=name == 'mu')
    return x.astype(jnp.float32)

  return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, Int8))
