"""Relative position: what attention is told about q - k. Two hooks, both without effect by default."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax

from tfm.core.registry import Part
from tfm.parts.site import Site


@dataclasses.dataclass(frozen=True)
class Relative(Part):
  """Nothing: attention knows of order only what its mask tells (NoPE).

  A piece overrides `rotate` (acts on queries and keys), or `bias` (added to the scores) and `biased`, or both.
  """

  def make(self, dims: Any) -> Any:
    """A fresh object with `rotate` and `bias`: a module if it owns parameters, else the piece itself."""
    return self

  def fits(self, head_dim: int) -> Iterator[str]:
    """Yields a sentence for each reason why it cannot serve heads of this size."""
    yield from ()

  @property
  def biased(self) -> bool:
    """Whether `bias` returns anything."""
    return False

  def rotate(self, x_BTNH: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Queries or keys, turned by their positions."""
    return x_BTNH

  def bias(self, n_heads: int, q: Site, k: Site) -> jax.Array | None:
    """What is added to the scores, `[B or 1, N, T, S]`, of sites `[B, T]` and `[B, S]`."""
    return None
