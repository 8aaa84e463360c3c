"""The acceptance test of speculative sampling gives the model's own distribution, and as many
tokens as it should.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.generate.accept import accept, accept_greedy, residual


def distributions(n, V, seed=0):
  """n pairs (p, q) of float64, some entries exactly 0."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(2, n, V)) * 2
  pq = np.exp(logits) * (rng.random((2, n, V)) > 0.2)
  return pq / pq.sum(-1, keepdims=True)


def test_what_stays_and_what_takes_its_place_add_up_to_the_models_distribution():
  p, q = distributions(50, 40)
  with jax.enable_x64(True):
    rest = np.asarray(residual(jnp.asarray(p), jnp.asarray(q)))
  stays = np.minimum(p, q)
  beta = stays.sum(-1, keepdims=True)
  np.testing.assert_allclose(stays + (1 - beta) * rest, p, atol=3e-16, rtol=0)
  np.testing.assert_allclose(beta[:, 0], 1 - np.abs(p - q).sum(-1) / 2, atol=1e-15)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _many(p_TV, q_GV, n, certain):
  """n tries of one draft: (how many stay, what comes after, what was drafted)."""
  keys = jax.random.split(jax.random.key(1), n)
  draw = lambda key: jax.random.categorical(jax.random.fold_in(key, 9), jnp.log(q_GV))
  drafted = jax.vmap(draw)(keys)
  many = lambda x: jnp.broadcast_to(x[None], (n, *x.shape))
  return *accept(many(p_TV), None if certain else many(q_GV), drafted, keys), drafted


@pytest.mark.parametrize(
  ('a', 'gamma', 'expected'), [(0.8, 4, 3.3616), (0.5, 5, 1.96875), (0.9, 7, 5.6953279)]
)
def test_as_many_tokens_are_said_as_the_acceptance_rate_gives(a, gamma, expected):
  # q is sure of token 0, p gives it a: it stays with probability a each time.
  p = jnp.tile(jnp.asarray([[a, 1 - a]], jnp.float32), (gamma + 1, 1))
  q = jnp.tile(jnp.asarray([[1.0, 0.0]]), (gamma, 1))
  stay, _, _ = _many(p, q, 20_000, False)
  said = np.asarray(stay) + 1.0
  assert expected == pytest.approx((1 - a ** (gamma + 1)) / (1 - a), abs=1e-7)
  assert abs(said.mean() - expected) < 4 * said.std() / len(said) ** 0.5


@pytest.mark.parametrize('certain', [False, True], ids=['drawn', 'certain'])
def test_tokens_are_said_as_often_as_the_model_would_say_them(certain):
  n, (p, q) = 40_000, distributions(3, 5, seed=4)
  if certain:
    q = np.eye(5)[[2, 0, 4]]
  stay, after, drafted = map(
    np.asarray, _many(jnp.asarray(p, jnp.float32), jnp.asarray(q[:2], jnp.float32), n, certain)
  )
  first = np.where(stay > 0, drafted[:, 0], after)
  # The second is decided where the first stayed; p and q do not depend on the first here.
  second = np.where(stay > 1, drafted[:, 1], after)[stay > 0]
  third = after[stay == 2]
  for said, wanted in ((first, p[0]), (second, p[1]), (third, p[2])):
    m = len(said)
    share = np.bincount(said, minlength=5) / m
    assert np.all(np.abs(share - wanted) <= 4.5 * np.sqrt(wanted * (1 - wanted) / m) + 1e-12)


def test_a_draft_of_the_models_own_distribution_always_stays():
  p, _ = distributions(3, 30)
  stay, _, _ = _many(jnp.asarray(p, jnp.float32), jnp.asarray(p[:2], jnp.float32), 1000, False)
  assert np.all(np.asarray(stay) == 2)


def test_the_likeliest_stay_up_to_the_first_that_is_not():
  best = jnp.asarray([[3, 1, 4], [3, 1, 4], [3, 1, 4]])
  stay, after = accept_greedy(best, jnp.asarray([[3, 1], [2, 1], [3, 2]]))
  assert stay.tolist() == [2, 0, 1]
  assert after.tolist() == [4, 3, 1]
