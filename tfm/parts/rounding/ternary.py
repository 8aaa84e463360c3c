"""Ternary weights and 8-bit activations (BitNet b1.58)."""

import dataclasses

import jax
import jax.numpy as jnp

from tfm.parts.rounding.base import Rounding, is_exact

#: Lower bound of the divisors of inputs and weights.
_LEAST = 1e-5


@dataclasses.dataclass(frozen=True)
class Ternary(Rounding):
  """Ternary weights and 8-bit inputs of projections, r(x) t(W) (BitNet b1.58, arXiv:2402.17764).

  The inputs of a token are r(x) = m round(x / m), with m = max |x| / 127. The weights are t(W) =
  s clip(round(W / s), -1, 1), with s the mean of |W|. Gradients are straight-through, as of x W at
  r(x) and t(W). Router scores and norms are not rounded.

  Attributes:
    weights: whether weights are rounded. False for weights that are already stored as s times -1, 0
      and 1.
  """

  weights: bool = True

  def wraps(self, role):
    return not is_exact(role)

  def inputs(self, x, n_in=1):
    return _eight_bits(x, n_in)

  def weight(self, w, lead=0):
    return _three_values(w, lead) if self.weights else w


def _straight_through(function):
  """Return a function of (array, number) with the gradient of the identity."""
  wrapped = jax.custom_vjp(function, nondiff_argnums=(1,))
  wrapped.defvjp(lambda a, n: (function(a, n), None), lambda n, _, g: (g,))
  return wrapped


@_straight_through
def _eight_bits(x: jax.Array, n_in: int) -> jax.Array:
  f = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  largest = jnp.max(jnp.abs(f), axis=tuple(range(-n_in, 0)), keepdims=True)
  scale = 127 / jnp.maximum(largest, _LEAST)
  return (jnp.clip(jnp.round(f * scale), -128, 127) / scale).astype(x.dtype)


@_straight_through
def _three_values(w: jax.Array, lead: int) -> jax.Array:
  f = w.astype(jnp.promote_types(w.dtype, jnp.float32))
  scale = 1 / jnp.maximum(
    jnp.mean(jnp.abs(f), axis=tuple(range(lead, w.ndim)), keepdims=True), _LEAST
  )
  return (jnp.clip(jnp.round(f * scale), -1, 1) / scale).astype(w.dtype)
