"""Mixers: how tokens exchange what they know."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax.numpy as jnp

from tfm.core.registry import Part

Cache = Any  # A mixer's own pytree of arrays.


@dataclasses.dataclass(frozen=True)
class Mixer(Part):
  """`make(dims)` returns a fresh module `(x_BTD, ctx, cache) -> (y_BTD, cache)`; `cache` None means none is kept.

  `heads` of every mixer in a stack that shares a relative position must agree.
  """

  def make(self, dims: Any) -> Any:
    """The module."""
    raise AssertionError(f'{type(self).__name__} must make a module')

  def init_cache(self, d_model: int, B: int, S: int, dtype: jnp.dtype) -> Cache:
    """An empty cache for B rows of S slots."""
    raise AssertionError(f'{type(self).__name__} must make a cache')

  def cache_numbers(self, d_model: int) -> int:
    """Numbers a cached token takes in this layer."""
    raise AssertionError(f'{type(self).__name__} must count its cache')

  def flops(self, d_model: int, pairs: float) -> float:
    """Multiplications and additions a token takes when it looks at `pairs` tokens on average."""
    raise AssertionError(f'{type(self).__name__} must count its FLOPs')

  def pairs(self, length: int) -> float:
    """How many tokens a token of a document of `length` looks at on average."""
    raise AssertionError(f'{type(self).__name__} must say how far it looks')

  def fits(self, d_model: int) -> Iterator[str]:
    """Yields a sentence for each reason why the mixer cannot stand in a model of this width."""
    yield from ()

  @property
  def causal(self) -> bool:
    """True if no token can learn of a later one."""
    return True

  @property
  def reads_prefix(self) -> bool:
    """True if the mask needs the input `prefix_mask`."""
    return False
