"""How a decoder reads an encoder's output."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax.numpy as jnp

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Cross(Part):
  """`make(dims)` returns a fresh module `(x_BTD, ctx, cache) -> (y_BTD, cache)` that reads
  `ctx.towers[tower]`.

  It has no mask and no relative position: the two sequences share no order, and padding is always
  out of sight."""

  #: The name of the tower that it reads.
  tower: str = dataclasses.field(default='encoder', kw_only=True)

  def make(self, dims: Any) -> Any:
    """The module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def fits(self, d_model: int) -> Iterator[str]:
    """Yields a sentence for each reason why it cannot stand in a model of this width."""
    yield from ()

  def flops(self, d_model: int, pairs: float) -> float:
    """Multiplications and additions a decoder token takes when it looks at `pairs` encoder tokens."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def memory_flops(self, d_model: int, d_memory: int) -> float:
    """What it takes to prepare an encoder token, which is `d_memory` wide, for being looked at."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def init_cache(self, d_model: int, B: int, S: int, dtype: jnp.dtype) -> Any:
    """An empty cache for B rows of S encoder tokens."""
    raise AssertionError(f'{type(self).__name__} must make a cache')
