"""Which drafted tokens may stay, so that what is said is distributed as if there had been no draft
(arXiv:2211.17192).

A token x drawn from q stays with probability min(1, p(x) / q(x)); in place of the first that does
not, one is drawn from norm(max(p - q, 0)); after the last, one more from p."""

import jax
import jax.numpy as jnp


def residual(p: jax.Array, q: jax.Array) -> jax.Array:
  """norm(max(p - q, 0)) over the last axis; p itself where p = q, which nothing drawn from q is put
  in place of.
  """
  more = jnp.maximum(p - q, 0)
  total = jnp.sum(more, axis=-1, keepdims=True)
  return jnp.where(total > 0, more / jnp.where(total > 0, total, 1), p)


def accept(
  p_BTV: jax.Array, q_BGV: jax.Array | None, drafted_BG: jax.Array, keys_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(how many drafted tokens stay, the token after them), int32 `[B]`; T = G + 1.

  `p` are the model's distributions before each drafted token and after the last, `q` those that
  they were drawn from: None for a draft without chance. Each row draws with its own key."""
  V = p_BTV.shape[-1]
  if q_BGV is None:
    q_BGV = jax.nn.one_hot(drafted_BG, V, dtype=p_BTV.dtype)
  both_B2 = jax.vmap(jax.random.split)(keys_B)
  u_BG = jax.vmap(lambda key: jax.random.uniform(key, drafted_BG.shape[1:]))(both_B2[:, 0])
  of = lambda x_BGV: jnp.take_along_axis(x_BGV, drafted_BG[..., None], axis=-1)[..., 0]
  n_B = leading(u_BG * of(q_BGV) < of(p_BTV[:, :-1]))
  at = lambda x_BTV: jnp.take_along_axis(x_BTV, n_B[:, None, None], axis=1)[:, 0]
  nothing_B1V = jnp.zeros_like(p_BTV[:, :1])
  next_BV = residual(at(p_BTV), at(jnp.concatenate([q_BGV, nothing_B1V], axis=1)))
  return n_B, jax.vmap(jax.random.categorical)(both_B2[:, 1], jnp.log(next_BV)).astype(jnp.int32)


def accept_likeliest(best_BT: jax.Array, drafted_BG: jax.Array) -> tuple[jax.Array, jax.Array]:
  """`accept` without chance: drafted tokens stay while they are the model's likeliest, then comes
  that one.
  """
  n_B = leading(best_BT[:, :-1] == drafted_BG)
  return n_B, jnp.take_along_axis(best_BT, n_B[:, None], axis=1)[:, 0]


def leading(good_BG: jax.Array) -> jax.Array:
  """How many of each row are true before the first that is not."""
  return jnp.sum(jnp.cumprod(good_BG.astype(jnp.int32), axis=1), axis=1)
