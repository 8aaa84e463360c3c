"""Algorithms 11, 12 and 13: training by gradient descent, one sequence at a time."""

from collections.abc import Callable, Sequence
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

      def loss(theta: EncoderDecoder, z_n: jax.Array = z_n, x_n: jax.Array = x_n) -> jax.Array:
        l = len(x_n)  # 3
        P = EDTransformer(z_n, x_n, theta)  # 4
        return -sum_of(jnp.log(P[x_n[t + 1], t]) for t in range(l - 1))  # 5

      theta = descend(loss, theta, eta)  # 6, 7, 8
  return theta  # 9


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
      masked = jax.random.uniform(draw, (l,)) < p_mask
      x_ = jnp.where(masked, mask_token, x_n)  # 4, 5
      T_ = [t for t in range(l) if masked[t]]  # 6

      def loss(
        theta: EncoderOnly,
        x_n: jax.Array = x_n,
        x_: jax.Array = x_,
        T_: Sequence[int] = T_,
      ) -> jax.Array:
        P = ETransformer(x_, theta)  # 7
        return -sum_of(jnp.log(P[x_n[t], t]) for t in T_)  # 8

      theta = descend(loss, theta, eta)  # 9, 10, 11
  return theta  # 12


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

      def loss(theta: DecoderOnly, x_n: jax.Array = x_n) -> jax.Array:
        l = len(x_n)  # 3
        P = DTransformer(x_n, theta)  # 4
        return -sum_of(jnp.log(P[x_n[t + 1], t]) for t in range(l - 1))  # 5

      theta = descend(loss, theta, eta)  # 6, 7, 8
  return theta  # 9


def descend(loss: Callable[[Theta], jax.Array], theta: Theta, eta: float) -> Theta:
  """Return theta - eta grad(loss)(theta)."""
  return jax.tree.map(lambda p, g: p - eta * g, theta, jax.jit(jax.grad(loss))(theta))


def sum_of(terms: Any) -> jax.Array:
  """Return the sum of scalars, 0 for none."""
  return sum(terms, start=jnp.zeros(()))
