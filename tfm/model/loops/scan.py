"""One compiled body for all repeats."""

from typing import Any

import jax

from tfm.model.loops.base import Body, Carry, Layers
from tfm.model.remat import remat
from tfm.parts.context import Ctx


def scan(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run the repeats as a `lax.scan`: compile time does not grow with depth."""
  return jax.lax.scan(
    remat(body, unit.dims.run.remat), carry, tuple(layers), length=len(layers.number)
  )


def unroll(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run the repeats one after another: often faster, and longer to compile."""
  length = len(layers.number)
  return jax.lax.scan(
    remat(body, unit.dims.run.remat), carry, tuple(layers), length=length, unroll=length
  )
