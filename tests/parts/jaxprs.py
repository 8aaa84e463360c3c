"""The arrays and the matrix products of a program."""

from collections.abc import Iterator
import math
from typing import Any

import jax


def variables(jaxpr: Any) -> Iterator[Any]:
  """Yield every variable that a jaxpr, or one nested in it, assigns."""
  for eqn in jaxpr.eqns:
    yield from eqn.outvars
    for inner in _nested(eqn):
      yield from variables(inner)


def product_flops(jaxpr: Any) -> int:
  """Return the FLOPs of all matrix products of a jaxpr, with those of each turn of a scan.

  Of the branches of a condition, such as a choice by platform, the largest counts.
  """
  total = 0
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'dot_general':
      (contracted, _), _ = eqn.params['dimension_numbers']
      sizes = [eqn.invars[0].aval.shape[axis] for axis in contracted]
      total += 2 * math.prod(sizes) * eqn.outvars[0].aval.size
    inner = [product_flops(nested) for nested in _nested(eqn)]
    if eqn.primitive.name == 'cond':
      inner = [max(inner)]
    total += eqn.params.get('length', 1) * sum(inner)
  return total


def _nested(eqn: Any) -> Iterator[Any]:
  for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')):
    if hasattr(inner, 'jaxpr'):
      yield inner.jaxpr
