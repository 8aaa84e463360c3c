"""Base class of roundings: quantised projections in the forward pass."""

import dataclasses

import jax

from tfm.core.registry import Part

#: Projections that select or weight experts, which are never rounded.
_EXACT = ('score', 'shared_gate')


@dataclasses.dataclass(frozen=True)
class Rounding(Part):
  """Projections without rounding."""

  def wraps(self, role: str) -> bool:
    """Return whether projections with this name ('q', 'up', ...) are rounded."""
    return False

  def inputs(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    """Return the rounded inputs of a projection, with `n_in` axes per token."""
    return x

  def weight(self, w: jax.Array, lead: int = 0) -> jax.Array:
    """Return the rounded weights in the dtype of `w`; the first `lead` axes are batch axes."""
    return w


def is_exact(role: str) -> bool:
  """Return whether a projection is never rounded, since its outputs are expert scores."""
  return role in _EXACT
