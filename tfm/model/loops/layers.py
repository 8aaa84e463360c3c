"""A loop over repeats with separate parameter trees."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.model.loops.base import Body, Carry, Layers
from tfm.parts.context import Ctx


def layers(body: Body, unit: Any, ctx: Ctx, carry: Carry, layers: Layers) -> tuple[Carry, Any]:
  """Run repeats with parameters unstacked by `tfm.generate.prepare`; a `Loop`.

  Args:
    body: One repeat.
    unit: Unused.
    ctx: Unused.
    carry: The initial carry.
    layers: The inputs of the repeats.

  Returns:
    (the final carry, (caches as a tuple of trees, captured arrays stacked over repeats)).
  """
  n = len(layers.params)
  caches, captured = [], []
  for layer in zip(*(_per_layer(x, n) for x in layers), strict=True):
    carry, (cache, sown) = body(carry, layer)
    caches.append(cache)
    captured.append(sown)
  return carry, (tuple(caches), jax.tree.map(lambda *x: jnp.stack(x), *captured))


def _per_layer(tree: Any, n: int) -> tuple[Any, ...]:
  if isinstance(tree, tuple):
    return tree
  return (None,) * n if tree is None else unstack(tree, n)


def unstack(tree_L: Any, length: int | None = None) -> tuple[Any, ...]:
  """Split a tree of arrays with a leading layer axis into one tree per layer.

  `length` is the number of layers, required only if the tree may have no array.
  """
  length = len(jax.tree.leaves(tree_L)[0]) if length is None else length
  return tuple(jax.tree.map(lambda a, i=i: a[i], tree_L) for i in range(length))
