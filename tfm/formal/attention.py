"""Algorithms 3, 4 and 5: attention with one query, with one head, and with several heads."""

import jax
import jax.numpy as jnp

from tfm.formal.parameters import AttentionWeights, Heads


def BasicAttention(e: jax.Array, E: jax.Array, W_qkv: AttentionWeights) -> jax.Array:
  """Return what one token reads from the tokens of a context (algorithm 3).

  Args:
    e: The current token [d_in].
    E: The tokens of the context [d_in, T].
    W_qkv: The parameters.

  Returns:
    The vector [d_out].
  """
  W_q, b_q, W_k, b_k, W_v, b_v = W_qkv
  T = E.shape[1]
  q = W_q @ e + b_q  # 1
  k = [W_k @ E[:, t] + b_k for t in range(T)]  # 2
  v = [W_v @ E[:, t] + b_v for t in range(T)]  # 3
  score = jnp.stack([jnp.exp(q @ k[t] / jnp.sqrt(len(q))) for t in range(T)])
  alpha = score / jnp.sum(score)  # 4
  return sum((alpha[t] * v[t] for t in range(T)), start=jnp.zeros_like(v[0]))  # 5


def Attention(X: jax.Array, Z: jax.Array, W_qkv: AttentionWeights, Mask: jax.Array) -> jax.Array:
  """Return what each token of a sequence reads from a context (algorithm 4).

  Args:
    X: The primary sequence [d_x, l_x].
    Z: The context sequence [d_z, l_z].
    W_qkv: The parameters.
    Mask: Whether token t_x may read token t_z, bool [l_z, l_x].

  Returns:
    The vectors [d_out, l_x].
  """
  W_q, b_q, W_k, b_k, W_v, b_v = W_qkv
  Q = W_q @ X + b_q[:, None]  # 1
  K = W_k @ Z + b_k[:, None]  # 2
  V = W_v @ Z + b_v[:, None]  # 3
  S = K.T @ Q  # 4
  S = jnp.where(Mask, S, -jnp.inf)  # 5
  return V @ jax.nn.softmax(S / jnp.sqrt(len(Q)), axis=0)  # 6


def MHAttention(X: jax.Array, Z: jax.Array, W: Heads, Mask: jax.Array) -> jax.Array:
  """Return the attention of several heads (algorithm 5).

  Args:
    X: The primary sequence [d_x, l_x].
    Z: The context sequence [d_z, l_z].
    W: The parameters.
    Mask: Whether token t_x may read token t_z, bool [l_z, l_x].

  Returns:
    The vectors [d_out, l_x].
  """
  Ys = [Attention(X, Z, W_qkv, Mask) for W_qkv in W.heads]  # 1, 2
  Y = jnp.concatenate(Ys)  # 3
  return W.W_o @ Y + W.b_o[:, None]  # 4


def ones(Z: jax.Array, X: jax.Array) -> jax.Array:
  """Return the mask with which each token reads all tokens, bool [l_z, l_x]."""
  return jnp.ones((Z.shape[1], X.shape[1]), bool)


def causal(X: jax.Array) -> jax.Array:
  """Return the mask with which token t' reads the tokens t <= t', bool [l, l]."""
  t = jnp.arange(X.shape[1])
  return t[:, None] <= t[None, :]
