import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.tasks.xent import cross_entropy

OPTIONS = [(0.0, True, 0.0), (0.1, True, 0.0), (0.1, False, 0.0), (0.2, False, 1e-2)]


def _plain(logits, labels, smoothing, smooth_gold, z_loss):
  V = logits.shape[-1]
  log_p = jax.nn.log_softmax(logits)
  gold = jax.nn.one_hot(labels, V)
  spread = smoothing / V if smooth_gold else smoothing / (V - 1) * (1 - gold)
  target = (1 - smoothing) * gold + spread
  return -(target * log_p).sum(-1) + z_loss * jax.nn.logsumexp(logits, -1) ** 2


@pytest.fixture(scope='module')
def case():
  key = jax.random.key(0)
  return jax.random.normal(key, (2, 5, 11)) * 3, jax.random.randint(key, (2, 5), 0, 11)


@pytest.mark.parametrize('options', OPTIONS)
def test_loss_and_gradient_match_the_formula(case, options):
  logits, labels = case
  scale = jnp.arange(5.0)[None]
  ours = jax.jit(
    jax.value_and_grad(lambda x: (cross_entropy(x, labels, *options).loss * scale).sum())
  )
  plain = jax.jit(jax.value_and_grad(lambda x: (_plain(x, labels, *options) * scale).sum()))
  for a, b in zip(ours(logits), plain(logits), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


def test_gradient_is_p_minus_the_target(case):
  logits, labels = case
  grad = jax.grad(lambda x: cross_entropy(x, labels).loss.sum())(logits)
  np.testing.assert_allclose(grad, jax.nn.softmax(logits) - jax.nn.one_hot(labels, 11), atol=1e-6)


def test_uniform_model_loses_ln_v():
  labels = jnp.zeros((1, 3), jnp.int32)
  np.testing.assert_allclose(
    cross_entropy(jnp.zeros((1, 3, 37_000)), labels).loss, math.log(37_000), rtol=1e-6
  )


@pytest.mark.parametrize(('smooth_gold', 'floor'), [(False, 1.376948), (True, 1.376913)])
def test_irreducible_loss_of_label_smoothing(smooth_gold, floor):
  V, e = 37_000, 0.1
  off = e / V if smooth_gold else e / (V - 1)
  logits = (
    jnp.full((1, 1, V), math.log(off))
    .at[..., 3]
    .set(math.log(1 - e + (off if smooth_gold else 0.0)))
  )
  got = cross_entropy(logits, jnp.full((1, 1), 3), e, smooth_gold).loss
  np.testing.assert_allclose(got, floor, atol=3e-6)


def test_nll_is_not_smoothed_and_correct_marks_the_top(case):
  logits, labels = case
  got = cross_entropy(logits, labels, 0.1, True, 1e-2)
  np.testing.assert_allclose(got.nll, _plain(logits, labels, 0.0, True, 0.0), rtol=1e-5)
  np.testing.assert_array_equal(got.correct, logits.argmax(-1) == labels)


def test_large_and_16_bit_logits_stay_finite(case):
  logits, labels = case
  x = (logits * 1000).astype(jnp.bfloat16)
  loss, grad = jax.value_and_grad(lambda x: cross_entropy(x, labels).loss.sum())(x)
  assert loss.dtype == jnp.float32
  assert grad.dtype == jnp.bfloat16
  assert jnp.isfinite(loss)
  assert jnp.isfinite(grad).all()


def test_no_log_softmax_is_stored():
  B, T, V = 2, 16, 4096
  x = jax.ShapeDtypeStruct((B, T, V), jnp.float32)
  y = jax.ShapeDtypeStruct((B, T), jnp.int32)
  step = jax.jit(jax.value_and_grad(lambda x, y: cross_entropy(x, y).loss.sum()))
  compiled = step.lower(x, y).compile({'xla_backend_optimization_level': 2})
  assert compiled.memory_analysis().temp_size_in_bytes < B * T * V
