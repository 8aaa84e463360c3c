"""Variables of a jaxpr, for tests."""

from collections.abc import Iterator
from typing import Any

import jax


def variables(jaxpr: Any) -> Iterator[Any]:
  """Yield every variable that a jaxpr, or a nested jaxpr, assigns."""
  for eqn in jaxpr.eqns:
    yield from eqn.outvars
    for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')):
      if hasattr(inner, 'jaxpr'):
        yield from variables(inner.jaxpr)
