"""Loops over repeats with stacked parameters: as a scan, or unrolled."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.model.loops.base import Body, Carry, Layers
from tfm.model.remat import remat
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
  body = remat(_in_turn(body, unit.dims.run), unit.dims.run.remat)
  return jax.lax.scan(body, carry, tuple(layers), length=len(layers.number))


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
  body, length = remat(body, unit.dims.run.remat), len(layers.number)
  return jax.lax.scan(body, carry, tuple(layers), length=length, unroll=length)


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
