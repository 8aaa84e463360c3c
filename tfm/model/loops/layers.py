"""Repeats whose parameters are separate trees."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.model.loops.base import Body, Carry, Layers
from tfm.parts.context import Ctx


def layers(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run repeats whose parameters `tfm.generate.prepare` has laid out one by one; their caches
  return the same way.
  """
  n = len(layers.params)
  each = [
    x if isinstance(x, tuple) else (None,) * n if x is None else unstack(x, n) for x in layers
  ]
  kept, captured = [], []
  for layer in zip(*each, strict=True):
    carry, (cache, sown) = body(carry, layer)
    kept.append(cache)
    captured.append(sown)
  return carry, (tuple(kept), jax.tree.map(lambda *x: jnp.stack(x), *captured))


def unstack(tree_L: Any, length: int | None = None) -> tuple[Any, ...]:
  """Return one tree per layer of a tree whose arrays have the layers on their leading axis.

  `length` is the number of layers, for trees that may have no array.
  """
  length = len(jax.tree.leaves(tree_L)[0]) if length is None else length
  return tuple(jax.tree.map(lambda a, i=i: a[i], tree_L) for i in range(length))
