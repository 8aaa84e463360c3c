"""How norm, branch and residual meet in a block."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part

#: A block's branches by name, in order: each maps x_BTD to what is added to the residual stream.
Branches = dict[str, Callable[[jax.Array], jax.Array]]


@dataclasses.dataclass(frozen=True)
class Wiring(Part):
  """Joins a block's branches to the residual stream."""

  def __call__(self, x_BTD: jax.Array, branches: Branches, norm: Callable[[str], Any]) -> jax.Array:
    """x_BTD after all branches. `norm(name)` is a fresh norm whose parameters stand under that name."""
    raise AssertionError(f'{type(self).__name__} must wire a block')

  @property
  def final_norm(self) -> bool:
    """Whether the residual stream leaves the last block unnormalised, so that the stack must end with a norm."""
    return True

  def norms(self, branches: int) -> int:
    """How many norms a block of so many branches has."""
    return branches
