"""Algorithms 11, 12 and 13: training by gradient descent, one sequence at a time."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from tfm.formal.architectures import DTransformer, EDTransformer, ETransformer
from tfm.formal.parameters import DecoderOnly, EncoderDecoder, EncoderOnly

Theta = TypeVar('Theta')


def EDTraining(
  pairs: Sequence[tuple[jax.Array, jax.Array]],
  theta: EncoderDecoder,
  N_epochs: int,
  eta: float,
) -> EncoderDecoder:
  """Train an encoder-decoder on pairs of sequences (algorithm 11).

  Args:
    pairs: Context sequences z_n and primary sequences x_n, int [l].
    theta: The initial parameters.
    N_epochs: The number of passes over the pairs.
    eta: The learning rate.

  Returns:
    The trained parameters.
  """
  for _ in range(N_epochs):  # 1
    for z_n, x_n in pairs:  # 2
      theta = descend(ed_loss, theta, eta, z_n, x_n)  # 3 to 8
  return theta  # 9


def ed_loss(theta: EncoderDecoder, z_n: jax.Array, x_n: jax.Array) -> jax.Array:
  """Return the loss of lines 3 to 5 of algorithm 11."""
  l = len(x_n)  # 3
  P = EDTransformer(z_n, x_n, theta)  # 4
  return -jnp.sum(jnp.log(P[x_n[1:], jnp.arange(l - 1)]))  # 5


def ETraining(
  sequences: Sequence[jax.Array],
  theta: EncoderOnly,
  N_epochs: int,
  eta: float,
  p_mask: float,
  mask_token: int,
  key: jax.Array,
) -> EncoderOnly:
  """Train an encoder to restore masked tokens (algorithm 12).

  Without a masked token the loss is 0.

  Args:
    sequences: Sequences x_n, int [l].
    theta: The initial parameters.
    N_epochs: The number of passes over the sequences.
    eta: The learning rate.
    p_mask: The probability that a token is masked.
    mask_token: The id that replaces masked tokens.
    key: The random key.

  Returns:
    The trained parameters.
  """
  for _ in range(N_epochs):  # 1
    for x_n in sequences:  # 2
      l = len(x_n)  # 3
      key, draw = jax.random.split(key)
      T_ = jax.random.uniform(draw, (l,)) < p_mask  # 6
      x_ = jnp.where(T_, mask_token, x_n)  # 4, 5
      theta = descend(e_loss, theta, eta, x_n, x_, T_)  # 7 to 11
  return theta  # 12


def e_loss(theta: EncoderOnly, x_n: jax.Array, x_: jax.Array, T_: jax.Array) -> jax.Array:
  """Return the loss of lines 7 and 8 of algorithm 12. `T_` marks the masked tokens."""
  P = ETransformer(x_, theta)  # 7
  return -jnp.sum(jnp.log(P[x_n, jnp.arange(len(x_n))]), where=T_)  # 8


def DTraining(
  sequences: Sequence[jax.Array], theta: DecoderOnly, N_epochs: int, eta: float
) -> DecoderOnly:
  """Train a decoder to predict the next token (algorithm 13).

  Args:
    sequences: Sequences x_n, int [l].
    theta: The initial parameters.
    N_epochs: The number of passes over the sequences.
    eta: The learning rate.

  Returns:
    The trained parameters.
  """
  for _ in range(N_epochs):  # 1
    for x_n in sequences:  # 2
      theta = descend(d_loss, theta, eta, x_n)  # 3 to 8
  return theta  # 9


def d_loss(theta: DecoderOnly, x_n: jax.Array) -> jax.Array:
  """Return the loss of lines 3 to 5 of algorithm 13."""
  l = len(x_n)  # 3
  P = DTransformer(x_n, theta)  # 4
  return -jnp.sum(jnp.log(P[x_n[1:], jnp.arange(l - 1)]))  # 5


def descend(
  loss: Callable[..., jax.Array], theta: Theta, eta: float, *sequences: jax.Array
) -> Theta:
  """Return theta - eta grad(loss), with the gradient by theta."""
  gradient: Theta = _gradient(loss)(theta, *sequences)
  return jax.tree.map(lambda p, g: p - eta * g, theta, gradient)


@functools.cache
def _gradient(loss: Callable[..., jax.Array]) -> Callable[..., Any]:
  """Return the compiled gradient of a loss, one function for all steps."""
  return jax.jit(jax.grad(loss))
