"""Algorithms 1, 2, 6 and 7: embeddings, layer normalisation and unembedding."""

import jax
import jax.numpy as jnp


def token_embedding(v: int | jax.Array, W_e: jax.Array) -> jax.Array:
  """Return the vector of a token (algorithm 1).

  Args:
    v: A token id, or ids [l].
    W_e: Token embeddings [d_e, N_V].

  Returns:
    e [d_e], or [d_e, l].
  """
  return W_e[:, v]  # 1


def position_embedding(t: int | jax.Array, W_p: jax.Array) -> jax.Array:
  """Return the vector of a position (algorithm 2).

  Args:
    t: A position, or positions [l].
    W_p: Position embeddings [d_e, l_max].

  Returns:
    e_p [d_e], or [d_e, l].
  """
  return W_p[:, t]  # 1


def layer_norm(e: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
  """Normalise a vector to mean `beta` and standard deviation `gamma` (algorithm 6).

  The variance is the biased one, and nothing is added to it.

  Args:
    e: A vector [d_e].
    gamma: The scale [d_e].
    beta: The offset [d_e].

  Returns:
    The normalised vector [d_e].
  """
  m = jnp.mean(e)  # 1
  v = jnp.mean((e - m) ** 2)  # 2
  return (e - m) / jnp.sqrt(v) * gamma + beta  # 3


#: `layer_norm` of each column of a matrix [d_e, l].
layer_norm_columns = jax.vmap(layer_norm, in_axes=(1, None, None), out_axes=1)


def unembedding(e: jax.Array, W_u: jax.Array) -> jax.Array:
  """Return the probability of each token (algorithm 7).

  Args:
    e: A vector [d_e], or vectors [d_e, l].
    W_u: Unembedding weights [N_V, d_e].

  Returns:
    p [N_V], or [N_V, l].
  """
  return jax.nn.softmax(W_u @ e, axis=0)  # 1
