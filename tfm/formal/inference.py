"""Algorithms 14 and 15: sampling from a trained decoder, and from an encoder-decoder."""

import jax
import jax.numpy as jnp

from tfm.formal.architectures import DTransformer, EDTransformer
from tfm.formal.parameters import DecoderOnly, EncoderDecoder


def DInference(
  x: jax.Array, theta: DecoderOnly, l_gen: int, tau: float, key: jax.Array
) -> jax.Array:
  """Return `l_gen` tokens that continue a prompt (algorithm 14).

  Args:
    x: The ids of the prompt, int [l].
    theta: The trained parameters.
    l_gen: The number of tokens.
    tau: The temperature. At 0 the most probable token is chosen.
    key: The random key.

  Returns:
    The tokens, int [l_gen].
  """
  l = len(x)  # 1
  for i in range(l_gen):  # 2
    P = DTransformer(x, theta)  # 3
    p = P[:, l + i - 1]  # 4
    y = sample(p, tau, jax.random.fold_in(key, i))  # 5
    x = jnp.append(x, y)  # 6, 7
  return x[l:]  # 8


def EDInference(
  z: jax.Array,
  theta: EncoderDecoder,
  tau: float,
  bos_token: int,
  eos_token: int,
  l_max: int,
  key: jax.Array,
) -> jax.Array:
  """Return a sequence for a context, up to its end token (algorithm 15).

  Args:
    z: The ids of the context sequence, int [l_z].
    theta: The trained parameters.
    tau: The temperature. At 0 the most probable token is chosen.
    bos_token: The first token of the result.
    eos_token: The last token of the result.
    l_max: The largest length of the result, which the paper does not limit.
    key: The random key.

  Returns:
    The sequence with both tokens, int [l]. Without the end token if it has length `l_max`.
  """
  x = jnp.array([bos_token])  # 1
  y = -1  # 2: no token is sampled yet
  while y != eos_token and len(x) < l_max:  # 3
    P = EDTransformer(z, x, theta)  # 4
    p = P[:, len(x) - 1]  # 5
    y = sample(p, tau, jax.random.fold_in(key, len(x)))  # 6
    x = jnp.append(x, y)  # 7, 8
  return x  # 9


def sample(p: jax.Array, tau: float, key: jax.Array) -> int:
  """Return a token from the distribution q, where q is proportional to p ** (1 / tau)."""
  if tau == 0:
    return int(jnp.argmax(p))
  return int(jax.random.categorical(key, jnp.log(p) / tau))
