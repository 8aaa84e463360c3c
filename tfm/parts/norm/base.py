"""Base class of normalisations over the last axis."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from tfm.core.registry import Part

if TYPE_CHECKING:
  from tfm.parts.context import Dims


@dataclasses.dataclass(frozen=True)
class Norm(Part):
  """Base class: normalisation of the last axis.

  `make(dims)` returns a module `x_BTD -> x_BTD`, or `(x_BTD, cond_BD) -> x_BTD` if `conditioned`.
  Statistics are computed in the reduce dtype of the run.
  """

  #: Whether the module takes a second input: a condition, one vector per example.
  conditioned: ClassVar[bool] = False

  def make(self, dims: 'Dims', letters: str = 'D') -> Any:
    """Return the module.

    Args:
      dims: sizes and settings of the model.
      letters: axes of the parameters: 'D' for hidden states, 'H' for one head, 'NH' for separate
        parameters per head.

    Returns:
      A module that normalises the last axis.
    """
    raise AssertionError(f'{type(self).__name__} must make a module')


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def standardized(x: jax.Array, eps: float, centred: bool) -> jax.Array:
  """Standardize the last axis: (x - m) / sqrt(mean((x - m)^2) + eps).

  The function has its own VJP, which saves y and r = 1 / sqrt(mean((x - m)^2) + eps) only. The
  gradient is r (g - mean(g) - y mean(g y)).

  Args:
    x: input, in the dtype of the statistics.
    eps: added to the variance.
    centred: subtract the mean m, else m = 0.

  Returns:
    An array with the shape and dtype of `x`.
  """
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
