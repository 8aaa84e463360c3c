"""Loops over repeats with stacked parameters: as a scan, or unrolled."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.model.loops.base import Body, Carry, Layers
from tfm.model.remat import remat
from tfm.parts.cache.base import Layered
from tfm.parts.context import Ctx, Run


def scan(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run the repeats as a `lax.scan`; the compile time does not grow with depth. A `Loop`.

  Args:
    body: One repeat.
    unit: The module of a repeat, which has the rematerialisation policy.
    ctx: Unused.
    carry: The initial carry.
    layers: The inputs of the repeats.

  Returns:
    (the final carry, the outputs of `body` stacked over repeats).
  """
  return _scan(_in_turn(body, unit.dims.run), unit, carry, layers, unroll=1)


def unroll(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run the repeats as an unrolled scan: often faster, but slower to compile.

  Args:
    body: One repeat.
    unit: The module of a repeat.
    ctx: Unused.
    carry: The initial carry.
    layers: The inputs of the repeats.

  Returns:
    (the final carry, the outputs of `body` stacked over repeats).
  """
  return _scan(body, unit, carry, layers, unroll=len(layers.number))


def _scan(body: Body, unit: Any, carry: Carry, layers: Layers, unroll: int) -> tuple[Carry, Any]:
  """Run the repeats, `unroll` of them in one step of the scan."""
  run, length = unit.dims.run, len(layers.number)
  body = remat(body, run.remat)
  if layers.caches is None or not run.cache.in_place:
    return jax.lax.scan(body, carry, tuple(layers), length=length, unroll=unroll)
  stores = [block['mixer']['tokens'] for block in layers.caches]
  rest = [_with_store(block, None) for block in layers.caches]
  index_L = jnp.arange(length, dtype=jnp.int32)

  def view(store: Any, i: jax.Array) -> Any:
    return None if store is None else Layered(store, i)

  def one(state: Any, layer: Any) -> tuple[Any, Any]:
    carry, stores = state
    (params, caches, keys, number), i = layer
    views = [view(store, i) for store in stores]
    caches = list(map(_with_store, caches, views))
    carry, (caches, sown) = body(carry, (params, caches, keys, number))
    written = [block['mixer']['tokens'] for block in caches]
    stores = list(map(_stores_of, written))
    rest = [_with_store(block, None) for block in caches]
    return (carry, stores), (rest, sown)

  each = tuple(layers._replace(caches=rest)), index_L
  state = carry, stores
  (carry, stores), (rest, sown) = jax.lax.scan(one, state, each, length=length, unroll=unroll)
  return carry, (list(map(_with_store, rest, stores)), sown)


def _with_store(block: dict[str, Any], store: Any) -> dict[str, Any]:
  """Return the cache of a block with another store of tokens."""
  return block | {'mixer': block['mixer'] | {'tokens': store}}


def _stores_of(view: Layered | None) -> Any:
  return None if view is None else view.stores


def _in_turn(body: Body, run: Run) -> Body:
  """Return `body` with parameters that are cast one layer at a time, if memory matters.

  XLA's bfloat16 propagation moves casts out of a loop, and then holds a copy of all layers in the
  compute dtype. It cannot change the dtype of bits.
  """
  if run.remat == 'none' or (run.precision.param, run.precision.compute) != _CAST:
    return body

  def in_turn(carry: Carry, layer: Any) -> tuple[Carry, Any]:
    params, *others, number = layer
    zero = jax.lax.shift_right_logical(number, jnp.int32(31)).astype(jnp.uint32)
    return body(carry, (jax.tree.map(lambda x: _opaque(x, zero), params), *others, number))

  return in_turn


#: Parameters and computation of a run with casts.
_CAST = ('float32', 'bfloat16')


@jax.custom_vjp
def _opaque(x: jax.Array, zero: jax.Array) -> jax.Array:
  """Return x by its bits, which are combined with a zero that the compiler does not know."""
  if x.dtype != jnp.float32:
    return x
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32) ^ jnp.broadcast_to(zero, x.shape)
  return jax.lax.bitcast_convert_type(bits, x.dtype)


_opaque.defvjp(lambda x, zero: (_opaque(x, zero), None), lambda _, g: (g, None))
