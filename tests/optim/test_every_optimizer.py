"""The contract of every optimizer in the table. A new row is tested as well."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tfm.optim import TABLE
from tfm.optim.letters import state_letters
from tfm.optim.schedule import Constant

LETTERS = {
  'embed': 'VD',
  'segment_0': {'q': {'w': 'LDNH', 'b': 'LNH'}, 'o': 'LNHD', 'norm': 'LD', 'experts': 'LEDF'},
  'norm': 'D',
}
SIZES = {'L': 2, 'V': 11, 'D': 8, 'N': 2, 'H': 6, 'F': 10, 'E': 3}
SMALL = {'adafactor': {'min_size': 4}}  # so that the factored path is taken


def drawn(seed):
  leaves, tree = jax.tree.flatten(LETTERS)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  draw = lambda key, letters: jax.random.normal(key, [SIZES[c] for c in letters])
  return jax.tree.unflatten(tree, [draw(k, l) for k, l in zip(keys, leaves, strict=True)])


def loss(params, target):
  return sum(
    jnp.sum((a - b) ** 2)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(target), strict=True)
  )


@pytest.fixture(scope='module', params=list(TABLE))
def trained(request):
  """An optimizer, and its states before and after 1 and 60 steps on a quadratic."""
  small = SMALL.get(request.param, {})
  spec = TABLE[request.param](lr=0.02, schedule=Constant(), decay=0.01, **small)
  tx = spec.make(60, LETTERS)
  target = drawn(1)

  @jax.jit
  def step(params, state):
    updates, state = tx.update(jax.grad(loss)(params, target), state, params)
    return optax.apply_updates(params, updates), state

  history = [(drawn(0), jax.jit(tx.init)(drawn(0)))]
  for _ in range(60):
    history.append(step(*history[-1]))
  return spec, tx, target, history


def test_quadratic_falls(trained):
  _, _, target, history = trained
  losses = [float(loss(params, target)) for params, _ in history]
  assert losses[1] < losses[0]
  assert losses[60] < 0.8 * losses[0]


def test_every_parameter_moves_and_stays_finite(trained):
  _, _, _, history = trained
  form = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert form(history[0]) == form(history[60])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(history[60]))
  jax.tree.map(
    lambda a, b: np.testing.assert_array_less(0, np.abs(a - b).max()), history[0][0], history[1][0]
  )


def test_optimizer_is_deterministic(trained):
  spec, _, target, history = trained
  again = spec.make(60, LETTERS)
  grads = jax.jit(jax.grad(loss))(history[0][0], target)
  updates, _ = jax.jit(again.update)(grads, history[0][1], history[0][0])
  after = optax.apply_updates(history[0][0], updates)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after, history[1][0]
  )


def test_letters_match_the_axes_of_the_state(trained):
  _, tx, _, history = trained
  shapes = jax.eval_shape(lambda: history[0][0])
  letters = state_letters(tx, shapes, LETTERS)
  assert jax.tree.structure(letters) == jax.tree.structure(history[0][1])
  for name, leaf in zip(jax.tree.leaves(letters), jax.tree.leaves(history[0][1]), strict=True):
    if name:
      assert tuple(SIZES[c] for c in name) == leaf.shape
    else:
      assert leaf.size <= 3


def test_defaults_are_valid(trained):
  assert list(type(trained[0])().check()) == []


def test_decay_applies_to_matrices_and_tables_only(trained):
  spec = dataclasses.replace(trained[0], decay=0.5, no_decay=('segment_0/o',))
  params, zeros = drawn(0), jax.tree.map(jnp.zeros_like, drawn(0))
  tx = spec.make(10, LETTERS)
  updates, _ = jax.jit(tx.update)(zeros, jax.jit(tx.init)(params), params)
  scale = spec.scale(LETTERS) or jax.tree.map(lambda _: 1.0, LETTERS)
  expected = jax.tree.map(lambda p, s: -0.02 * 0.5 * p * s, params, scale)
  for still in ('norm', 'b', 'o'):
    for tree in (expected, expected['segment_0'], expected['segment_0']['q']):
      if still in tree:
        tree[still] = 0 * tree[still]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), updates, expected
  )
