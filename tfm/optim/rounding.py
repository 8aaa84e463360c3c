"""Updates of 16-bit parameters and moments in float32."""

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


def stochastic_round(x: jax.Array, key: jax.Array) -> jax.Array:
  """Return float32 numbers as bfloat16, rounded up or down at random (arXiv:1502.02551).

  The expected value is x. Numbers that are not finite stay as they are.
  """
  noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
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


def small_second_moment(
  adam: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Return Adam with v in bfloat16, rounded at random.

  With rounding to the nearest number, v would never fall: b2 changes it by less than half the
  distance of two numbers.
  """

  def init(params: Any) -> Any:
    state = adam.init(params)
    return state._replace(nu=jax.tree.map(lambda v: v.astype(jnp.bfloat16), state.nu))

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    wide = jax.tree.map(lambda v: v.astype(jnp.float32), state.nu)
    updates, new = adam.update(grads, state._replace(nu=wide), params)
    return updates, new._replace(nu=round_tree(new.nu, state.count, seed=1))

  return optax.GradientTransformation(init, update)
