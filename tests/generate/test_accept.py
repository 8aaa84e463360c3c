"""Speculative acceptance preserves the model's distribution, at the expected acceptance rate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.generate.accept import accept, accept_greedy, residual


def distributions(n, V, seed=0):
  """Return n pairs (p, q) of distributions, float64, with some entries exactly 0."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(2, n, V)) * 2
  pq = np.exp(logits) * (rng.random((2, n, V)) > 0.2)
  return pq / pq.sum(-1, keepdims=True)


def test_accepted_plus_residual_equals_the_model_distribution():
  p, q = distributions(50, 40)
  with jax.enable_x64(True):
    rest = np.asarray(residual(jnp.asarray(p), jnp.asarray(q)))
  accepted = np.minimum(p, q)
  beta = accepted.sum(-1, keepdims=True)
  np.testing.assert_allclose(accepted + (1 - beta) * rest, p, atol=3e-16, rtol=0)
  np.testing.assert_allclose(beta[:, 0], 1 - np.abs(p - q).sum(-1) / 2, atol=1e-15)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _try_drafts(p_TV, q_GV, n, deterministic):
  """Return (number accepted, next token, drafted tokens) of n tries of one draft."""
  keys = jax.random.split(jax.random.key(1), n)
  draw = lambda key: jax.random.categorical(jax.random.fold_in(key, 9), jnp.log(q_GV))
  drafted = jax.vmap(draw)(keys)
  repeat = lambda x: jnp.broadcast_to(x[None], (n, *x.shape))
  q = None if deterministic else repeat(q_GV)
  return *accept(repeat(p_TV), q, drafted, keys), drafted


@pytest.mark.parametrize(
  ('a', 'gamma', 'expected'), [(0.8, 4, 3.3616), (0.5, 5, 1.96875), (0.9, 7, 5.6953279)]
)
def test_mean_tokens_per_pass_follow_the_acceptance_rate(a, gamma, expected):
  # q always draws token 0, which p accepts with probability a.
  p = jnp.tile(jnp.asarray([[a, 1 - a]], jnp.float32), (gamma + 1, 1))
  q = jnp.tile(jnp.asarray([[1.0, 0.0]]), (gamma, 1))
  accepted, _, _ = _try_drafts(p, q, 20_000, False)
  tokens = np.asarray(accepted) + 1.0
  assert expected == pytest.approx((1 - a ** (gamma + 1)) / (1 - a), abs=1e-7)
  assert abs(tokens.mean() - expected) < 4 * tokens.std() / len(tokens) ** 0.5


@pytest.mark.parametrize('deterministic', [False, True])
def test_token_frequencies_follow_the_model(deterministic):
  n, (p, q) = 40_000, distributions(3, 5, seed=4)
  if deterministic:
    q = np.eye(5)[[2, 0, 4]]
  p_TV, q_GV = jnp.asarray(p, jnp.float32), jnp.asarray(q[:2], jnp.float32)
  accepted, after, drafted = map(np.asarray, _try_drafts(p_TV, q_GV, n, deterministic))
  first = np.where(accepted > 0, drafted[:, 0], after)
  # The second token exists where the first was accepted. p and q do not depend on the first here.
  second = np.where(accepted > 1, drafted[:, 1], after)[accepted > 0]
  third = after[accepted == 2]
  for tokens, expected in ((first, p[0]), (second, p[1]), (third, p[2])):
    m = len(tokens)
    share = np.bincount(tokens, minlength=5) / m
    assert np.all(np.abs(share - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / m) + 1e-12)


def test_draft_with_the_model_distribution_is_always_accepted():
  p, _ = distributions(3, 30)
  p_TV = jnp.asarray(p, jnp.float32)
  accepted, _, _ = _try_drafts(p_TV, p_TV[:2], 1000, False)
  assert np.all(np.asarray(accepted) == 2)


def test_greedy_accepts_up_to_the_first_difference():
  best = jnp.asarray([[3, 1, 4], [3, 1, 4], [3, 1, 4]])
  accepted, after = accept_greedy(best, jnp.asarray([[3, 1], [2, 1], [3, 2]]))
  assert accepted.tolist() == [2, 0, 1]
  assert after.tolist() == [4, 3, 1]
