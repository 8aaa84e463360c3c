"""Loops over repeats with stacked parameters: as a scan, or unrolled."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.model.loops.base import Body, Carry, Layers
from tfm.model.remat import remat
from tfm.parts.cache.base import Layered
from tfm.parts.context import Ctx


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
  return _scan(body, unit, carry, layers, unroll=1)


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
