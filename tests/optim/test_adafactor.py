import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tfm.optim import Adafactor
from tfm.optim.schedule import Constant


def steps(tx, params, grads):
  """Return the update of each gradient in turn, for constant parameters."""
  state, out, update = tx.init(params), [], jax.jit(tx.update)
  for g in grads:
    updates, state = update(g, state, params)
    out.append(updates)
  return out, state


@pytest.fixture(scope='module')
def tree():
  key = jax.random.key(0)
  draw = lambda i: {
    'w': (1 + i) * jax.random.normal(jax.random.fold_in(key, i), [3, 6, 2, 5]),
    'b': jax.random.normal(jax.random.fold_in(key, 9 + i), [3, 2, 5]),
  }
  return draw(0), [draw(1), draw(2), draw(3)]


LETTERS = {'w': 'LDNH', 'b': 'LNH'}


@pytest.mark.parametrize('momentum', [None, 0.9])
def test_each_stacked_layer_matches_optax(tree, momentum):
  params, grads = tree
  ours, _ = steps(
    Adafactor(lr=0.1, schedule=Constant(), min_size=4, momentum=momentum).make(9, LETTERS),
    params,
    grads,
  )
  theirs = optax.adafactor(0.1, min_dim_size_to_factor=4, momentum=momentum)
  for layer in range(3):
    pick = lambda t, i=layer: {'w': t['w'][i].reshape(6, 10), 'b': t['b'][i].reshape(10)}
    expected, _ = steps(theirs, pick(params), [pick(g) for g in grads])
    for a, b in zip(ours, expected, strict=True):
      jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-7), pick(a), b)


def test_only_large_matrices_are_factored(tree):
  params, _ = tree
  state = Adafactor(min_size=4).make(9, LETTERS).init(params)['rule'][0]
  assert state.v['w'].rows.shape == (3, 6)
  assert state.v['w'].cols.shape == (3, 2, 5)
  assert state.v['b'].shape == (3, 2, 5)
  assert Adafactor(min_size=7).make(9, LETTERS).init(params)['rule'][0].v['w'].shape == (3, 6, 2, 5)


def test_absolute_step_ignores_the_parameter_scale(tree):
  params, grads = tree
  tx = Adafactor(lr=0.1, schedule=Constant(), relative=False, threshold=None).make(9, LETTERS)
  (first, *_), _ = steps(tx, params, grads)
  (other, *_), _ = steps(tx, jax.tree.map(lambda p: 5 * p, params), grads)
  np.testing.assert_array_equal(first['w'], other['w'])
  np.testing.assert_allclose(jnp.abs(first['w']), 0.1, rtol=1e-5)
