"""Updates of 16-bit parameters in float32."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class WideState(NamedTuple):
  """The state of an optimizer of 16-bit parameters.

  Attributes:
    inner: The state of the optimizer, for parameters in float32.
    step: The number of updates.
    master: The parameters in float32, or () with stochastic rounding.
  """

  inner: Any
  step: jax.Array
  master: Any


def random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Return a random number below 2^16 for each entry of an array, as uint32.

  It is a hash (lowbias32, github.com/skeeto/hash-prospector) of the index and the key. XLA fuses it
  with the rounding. On CPUs, `jax.random.bits` needs a temporary array and more operations.

  Args:
    key: A key of `jax.random`.
    shape: The shape of the array.

  Returns:
    The numbers. They do not depend on the sharding.
  """
  first, second = jnp.ravel(jax.random.key_data(key))[:2]
  index, stride = jnp.full(shape, first), 1
  for axis in reversed(range(len(shape))):
    step = jnp.uint32(stride % 2**32)
    index = index + step * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    stride *= shape[axis]
  return _hashed(_hashed(index) ^ second) >> 16


def _hashed(x: jax.Array) -> jax.Array:
  x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
  x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
  return x ^ (x >> 16)


def stochastic_round(x: jax.Array, key: jax.Array) -> jax.Array:
  """Return float32 numbers as bfloat16, rounded up or down at random (arXiv:1502.02551).

  The expected value is x. Numbers that are not finite stay as they are.
  """
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + random_bits(key, x.shape)
  down = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32)
  return jnp.where(jnp.isfinite(x), down, x).astype(jnp.bfloat16)


def round_tree(tree: Any, step: jax.Array, seed: int) -> Any:
  """Return a tree of float32 arrays as bfloat16, with new random bits for each leaf and step."""
  key = jax.random.fold_in(jax.random.key(seed), step)
  leaves, structure = jax.tree.flatten(tree)
  rounded = [stochastic_round(x, jax.random.fold_in(key, i)) for i, x in enumerate(leaves)]
  return jax.tree.unflatten(structure, rounded)


def in_float32(inner: optax.GradientTransformation, rounding: str) -> optax.GradientTransformation:
  """Return an optimizer that computes the updates of bfloat16 parameters in float32.

  Args:
    inner: The optimizer.
    rounding: 'stochastic' or 'master'.

  Returns:
    The optimizer. The sum of its update and the parameter is representable, so adding them does not
    round.
  """
  wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)

  def init(params: Any) -> WideState:
    copy = lambda p: jnp.array(p, jnp.float32, copy=True)
    master = jax.tree.map(copy, params) if rounding == 'master' else ()
    return WideState(inner.init(wide(params)), jnp.zeros((), jnp.int32), master)

  def update(grads: Any, state: WideState, params: Any = None) -> tuple[Any, WideState]:
    old = state.master if rounding == 'master' else wide(params)
    updates, inner_state = inner.update(wide(grads), state.inner, old)
    new = optax.apply_updates(old, updates)
    if rounding == 'master':
      rounded = jax.tree.map(lambda x, p: x.astype(p.dtype), new, params)
    else:
      rounded = round_tree(new, state.step, seed=0)
    change = jax.tree.map(jnp.subtract, wide(rounded), wide(params))
    master = new if rounding == 'master' else ()
    return change, WideState(inner_state, state.step + 1, master)

  return optax.GradientTransformation(init, update)
