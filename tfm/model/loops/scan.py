"""Loops over repeats with stacked parameters: as a scan, or unrolled."""

from typing import Any

import jax

from tfm.model.loops.base import Body, Carry, Layers
from tfm.model.remat import remat
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
  body = remat(body, unit.dims.run.remat)
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
