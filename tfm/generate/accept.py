"""Acceptance of drafted tokens in speculative sampling (arXiv:2211.17192).

The tokens kept are distributed as if there had been no draft. A token x drawn from q is accepted
with probability min(1, p(x) / q(x)). The first rejected one is replaced by a token drawn from
norm(max(p - q, 0)). If all are accepted, one more token is drawn from p.
"""

import jax
import jax.numpy as jnp


def residual(p: jax.Array, q: jax.Array) -> jax.Array:
  """Return norm(max(p - q, 0)) over the last axis.

  Where p = q the result is p: then no token drawn from q is rejected, so it is not used.
  """
  more = jnp.maximum(p - q, 0)
  total = jnp.sum(more, axis=-1, keepdims=True)
  return jnp.where(total > 0, more / jnp.where(total > 0, total, 1), p)


def accept(
  p_BTV: jax.Array, q_BGV: jax.Array | None, drafted_BG: jax.Array, keys_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Accept or reject drafted tokens at random.

  Args:
    p_BTV: The model's distributions before each drafted token and after the last, T = G + 1.
    q_BGV: The distributions that the tokens were drawn from. None: the draft is deterministic.
    drafted_BG: The drafted tokens, int32.
    keys_B: A random key per sequence.

  Returns:
    (the number of accepted tokens, the token after them), int32 `[B]`.
  """
  V = p_BTV.shape[-1]
  if q_BGV is None:
    q_BGV = jax.nn.one_hot(drafted_BG, V, dtype=p_BTV.dtype)
  both_B2 = jax.vmap(jax.random.split)(keys_B)
  u_BG = jax.vmap(lambda key: jax.random.uniform(key, drafted_BG.shape[1:]))(both_B2[:, 0])
  of = lambda x_BGV: jnp.take_along_axis(x_BGV, drafted_BG[..., None], axis=-1)[..., 0]
  n_B = count_leading(u_BG * of(q_BGV) < of(p_BTV[:, :-1]))
  at = lambda x_BTV: jnp.take_along_axis(x_BTV, n_B[:, None, None], axis=1)[:, 0]
  nothing_B1V = jnp.zeros_like(p_BTV[:, :1])
  next_BV = residual(at(p_BTV), at(jnp.concatenate([q_BGV, nothing_B1V], axis=1)))
  return n_B, jax.vmap(jax.random.categorical)(both_B2[:, 1], jnp.log(next_BV)).astype(jnp.int32)


def accept_greedy(best_BT: jax.Array, drafted_BG: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Accept drafted tokens while they equal the model's most probable tokens `best_BT`.

  Returns the number of accepted tokens and the token after them, as `accept` does.
  """
  n_B = count_leading(best_BT[:, :-1] == drafted_BG)
  return n_B, jnp.take_along_axis(best_BT, n_B[:, None], axis=1)[:, 0]


def count_leading(good_BG: jax.Array) -> jax.Array:
  """Return the number of leading True values of each row, int32 `[B]`."""
  return jnp.sum(jnp.cumprod(good_BG.astype(jnp.int32), axis=1), axis=1)
