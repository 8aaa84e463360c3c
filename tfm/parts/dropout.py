"""Dropout of activations."""

from flax import linen as nn
import jax
import jax.numpy as jnp


def drop(x_BTD: jax.Array, rate: float, train: bool, module: nn.Module) -> jax.Array:
  """Return `x_BTD` with inverted dropout in training, drawn with the module's key; unchanged
  otherwise.
  """
  if not train or not rate:
    return x_BTD
  keep = jax.random.bernoulli(module.make_rng('dropout'), 1 - rate, x_BTD.shape)
  return jnp.where(keep, x_BTD / (1 - rate), 0)
