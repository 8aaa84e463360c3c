"""Algorithms 8, 9 and 10: an encoder-decoder, an encoder and a decoder."""

import jax
import jax.numpy as jnp

from tfm.formal.attention import MHAttention, causal, ones
from tfm.formal.elements import (
  layer_norm_columns,
  position_embedding,
  token_embedding,
  unembedding,
)
from tfm.formal.parameters import DecoderOnly, EncoderDecoder, EncoderOnly


@jax.jit
def EDTransformer(z: jax.Array, x: jax.Array, theta: EncoderDecoder) -> jax.Array:
  """Return the probabilities of the next tokens, given a context (algorithm 8).

  Args:
    z: The ids of the context sequence, int [l_z].
    x: The ids of the primary sequence, int [l_x].
    theta: The parameters.

  Returns:
    P [N_V, l_x]. Column t is the distribution of token t + 1.
  """
  l_z = len(z)  # 1
  E = [token_embedding(z[t], theta.W_e) + position_embedding(t, theta.W_p) for t in range(l_z)]  # 2
  Z = jnp.stack(E, 1)  # 3
  for enc in theta.encoder:  # 4
    Z = Z + MHAttention(Z, Z, enc.attention, ones(Z, Z))  # 5
    Z = layer_norm_columns(Z, *enc.norm_1)  # 6
    W_1, b_1, W_2, b_2 = enc.mlp
    Z = Z + W_2 @ jax.nn.relu(W_1 @ Z + b_1[:, None]) + b_2[:, None]  # 7
    Z = layer_norm_columns(Z, *enc.norm_2)  # 8, 9
  l_x = len(x)  # 10
  E = [
    token_embedding(x[t], theta.W_e) + position_embedding(t, theta.W_p) for t in range(l_x)
  ]  # 11
  X = jnp.stack(E, 1)  # 12
  for dec in theta.decoder:  # 13
    X = X + MHAttention(X, X, dec.attention, causal(X))  # 14
    X = layer_norm_columns(X, *dec.norm_3)  # 15
    X = X + MHAttention(X, Z, dec.cross, ones(Z, X))  # 16
    X = layer_norm_columns(X, *dec.norm_4)  # 17
    W_3, b_3, W_4, b_4 = dec.mlp
    X = X + W_4 @ jax.nn.relu(W_3 @ X + b_3[:, None]) + b_4[:, None]  # 18
    X = layer_norm_columns(X, *dec.norm_5)  # 19, 20
  return unembedding(X, theta.W_u)  # 21


@jax.jit
def ETransformer(x: jax.Array, theta: EncoderOnly) -> jax.Array:
  """Return the probabilities of the tokens, given both sides (algorithm 9, BERT).

  Args:
    x: The ids of the sequence, int [l].
    theta: The parameters.

  Returns:
    P [N_V, l]. Column t is the distribution of token t.
  """
  l = len(x)  # 1
  E = [token_embedding(x[t], theta.W_e) + position_embedding(t, theta.W_p) for t in range(l)]  # 2
  X = jnp.stack(E, 1)  # 3
  for layer in theta.layers:  # 4
    X = X + MHAttention(X, X, layer.attention, ones(X, X))  # 5
    X = layer_norm_columns(X, *layer.norm_1)  # 6
    W_1, b_1, W_2, b_2 = layer.mlp
    X = X + W_2 @ gelu(W_1 @ X + b_1[:, None]) + b_2[:, None]  # 7
    X = layer_norm_columns(X, *layer.norm_2)  # 8, 9
  X = gelu(theta.W_f @ X + theta.b_f[:, None])  # 10
  X = layer_norm_columns(X, *theta.norm)  # 11
  return unembedding(X, theta.W_u)  # 12


@jax.jit
def DTransformer(x: jax.Array, theta: DecoderOnly) -> jax.Array:
  """Return the probabilities of the next tokens (algorithm 10, GPT).

  Args:
    x: The ids of the sequence, int [l].
    theta: The parameters.

  Returns:
    P [N_V, l]. Column t is the distribution of token t + 1.
  """
  l = len(x)  # 1
  E = [token_embedding(x[t], theta.W_e) + position_embedding(t, theta.W_p) for t in range(l)]  # 2
  X = jnp.stack(E, 1)  # 3
  for layer in theta.layers:  # 4
    X_ = layer_norm_columns(X, *layer.norm_1)  # 5
    X = X + MHAttention(X_, X_, layer.attention, causal(X_))  # 6
    X_ = layer_norm_columns(X, *layer.norm_2)  # 7
    W_1, b_1, W_2, b_2 = layer.mlp
    X = X + W_2 @ gelu(W_1 @ X_ + b_1[:, None]) + b_2[:, None]  # 8, 9
  X = layer_norm_columns(X, *theta.norm)  # 10
  return unembedding(X, theta.W_u)  # 11


def gelu(x: jax.Array) -> jax.Array:
  """Return x P(X < x) for a standard normal X."""
  return jax.nn.gelu(x, approximate=False)
