"""Custom gradients match autodiff of the plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.parts import act
from tfm.parts.attend.dense import qk_products, softmax, softmax_values
from tfm.parts.contract import against_rows, contract
from tfm.parts.norm.base import standardized

RNG = np.random.default_rng(0)


def random(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def same_gradients(custom, plain, *args):
  y = jax.jit(plain)(*args)
  weights = random(*y.shape)
  np.testing.assert_allclose(jax.jit(custom)(*args), y, atol=1e-6, rtol=1e-5)
  of = lambda f: jax.jit(jax.grad(lambda *a: jnp.sum(weights * f(*a)), tuple(range(len(args)))))(
    *args
  )
  for a, b in zip(of(custom), of(plain), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('centred', [True, False])
def test_norm_gradient_matches_autodiff(centred):
  def plain(x):
    x = x - jnp.mean(x, -1, keepdims=True) if centred else x
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)

  same_gradients(lambda x: standardized(x, 1e-5, centred), plain, random(2, 3, 8))


@pytest.mark.parametrize('name', act.TABLE)
def test_activation_gradient_matches_autodiff(name):
  piece = act.TABLE[name]()
  same_gradients(piece, piece.value, random(4, 9))


@pytest.mark.parametrize('n_in', [1, 2])
def test_projection_gradient_matches_autodiff(n_in):
  w = random(*(4, 3, 5)[: n_in + 1], 2)
  x = random(2, 3, *w.shape[:n_in])
  plain = lambda x, w: jnp.tensordot(x, w, n_in)
  same_gradients(lambda x, w: contract(x, w, n_in), plain, x, w)


def test_tied_head_gradient_matches_autodiff():
  same_gradients(
    against_rows, lambda x, w: jnp.einsum('BTD,VD->BTV', x, w), random(2, 3, 4), random(7, 4)
  )


@pytest.mark.parametrize('with_sink', [False, True])
def test_masked_softmax_gradient_matches_autodiff(
  with_sink,
):
  s, ok = (
    random(2, 2, 1, 3, 4),
    jnp.asarray(RNG.random((2, 1, 1, 3, 4)) > 0.4).at[0, 0, 0, 0].set(False),
  )
  sink = random(1, 2, 1, 1, 1)

  def plain(s, sink):
    e = jnp.where(ok, jnp.exp(s), 0)
    total = jnp.sum(e, -1, keepdims=True) + (jnp.exp(sink) if with_sink else 0)
    return e / jnp.where(total > 0, total, 1)

  same_gradients(lambda s, sink: softmax(s, ok, sink if with_sink else None), plain, s, sink)
  grad = jax.grad(lambda s: jnp.sum(softmax(s, ok, None) ** 2))(s)
  assert not np.asarray(grad)[0, :, :, 0].any()


@pytest.mark.parametrize('with_sink', [False, True])
def test_softmax_values_gradient_matches_autodiff(with_sink):
  s, v, sink = random(2, 2, 3, 4, 5), random(2, 2, 5, 6), random(1, 2, 3, 1, 1)
  ok = jnp.asarray(RNG.random((2, 1, 1, 4, 5)) > 0.4).at[0, 0, 0, 0].set(False)

  def plain(s, v, sink):
    return jnp.einsum('BKGTS,BKSH->BKGTH', softmax(s, ok, sink if with_sink else None), v)

  same_gradients(
    lambda s, v, sink: softmax_values(s, v, ok, sink if with_sink else None, [], []),
    plain,
    s,
    v,
    sink,
  )
  assert not np.asarray(softmax_values(s, v, ok, None, [], []))[0, :, :, 0].any()


def test_score_gradient_matches_autodiff():
  plain = lambda q, k: jnp.einsum('BKMH,BKSH->BKMS', q, k)
  same_gradients(
    lambda q, k: qk_products(q, k, 'float32'), plain, random(2, 3, 4, 5), random(2, 3, 6, 5)
  )
