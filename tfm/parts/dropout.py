"""Dropout of activations."""

from flax import linen as nn
import jax
import jax.numpy as jnp


def drop(x_BTD: jax.Array, rate: float, train: bool, module: nn.Module) -> jax.Array:
  """Apply inverted dropout to activations in training.

  Args:
    x_BTD: activations.
    rate: probability of a zero.
    train: whether to apply dropout.
    module: the module that provides the key `dropout`.

  Returns:
    Dropped activations in training, else `x_BTD` unchanged.
  """
  if not train or not rate:
    return x_BTD
  keep = jax.random.bernoulli(module.make_rng('dropout'), 1 - rate, x_BTD.shape)
  return jnp.where(keep, x_BTD / (1 - rate), 0)
