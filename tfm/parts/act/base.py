"""Base class of activations: elementwise functions without parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Act(Part):
  """Identity, f(x) = x; it makes a gated feed-forward network bilinear.

  Subclasses define `value`. A call saves the derivative for the backward pass, one number per
  element.
  """

  def value(self, x: jax.Array) -> jax.Array:
    """Return the activation of each element."""
    return x

  def __call__(self, x: jax.Array) -> jax.Array:
    return _saving_derivative(self, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _saving_derivative(act: Act, x: jax.Array) -> jax.Array:
  # Autodiff would save every intermediate value of the formula for the backward pass.
  return act.value(x)


def _forward(act, x):
  return jax.jvp(act.value, (x,), (jnp.ones_like(x),))


_saving_derivative.defvjp(_forward, lambda act, derivative, g: (derivative * g,))
