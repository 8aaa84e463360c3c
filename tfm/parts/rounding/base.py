"""How the projections of a block round their inputs and weights in every forward pass."""

import dataclasses

import jax

from tfm.core.registry import Part

#: Projections that choose or weigh experts, which no rounding touches.
_EXACT = ('score', 'shared_gate')


@dataclasses.dataclass(frozen=True)
class Rounding(Part):
  """Projections are computed without rounding."""

  def wraps(self, role: str) -> bool:
    """Return whether the projections of this name ('q', 'up', ...) are rounded."""
    return False

  def inputs(self, x: jax.Array, n_in: int = 1) -> jax.Array:
    """Return the rounded inputs of a projection, which are the last `n_in` axes of each token."""
    return x

  def weight(self, w: jax.Array, lead: int = 0) -> jax.Array:
    """Return the rounded weight, in the dtype of `w`; the first `lead` axes count weights of their
    own.
    """
    return w


def is_exact(role: str) -> bool:
  """Return whether a projection is never rounded: its outputs are scores of experts."""
  return role in _EXACT
