"""Normalisation over the last axis; statistics in the run's reduce dtype."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Norm(Part):
  """`make(dims)` returns a module `x_BTD -> x_BTD`; `(x_BTD, cond_BD) -> x_BTD` for kinds that are
  `conditioned`.
  """

  #: Whether it takes a vector per example (a timestep or class embedding) beside the activations.
  conditioned: ClassVar[bool] = False

  def make(self, dims: Any, letters: str = 'D') -> Any:
    """A module that normalises the last axis, whose parameters lie along `letters` ('H' in a head,
    'NH' one each).
    """
    raise AssertionError(f'{type(self).__name__} must make a module')


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def standardized(x: jax.Array, eps: float, centred: bool) -> jax.Array:
  """(x - m) / sqrt(mean (x - m)^2 + eps) over the last axis, m the mean if `centred`, else 0.

  *Why its own VJP*: y and one number a row are all its gradient needs, r (g - mean(g) - y mean(g
  y))."""
  return _standardize(x, eps, centred)[0]


def _standardize(x, eps, centred):
  if centred:
    x = x - jnp.mean(x, -1, keepdims=True)
  r = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)
  return x * r, (x * r, r)


def _standardize_backward(eps, centred, residuals, g):
  y, r = residuals
  inner = g - y * jnp.mean(g * y, -1, keepdims=True)
  return ((inner - jnp.mean(g, -1, keepdims=True) if centred else inner) * r,)


standardized.defvjp(_standardize, _standardize_backward)
