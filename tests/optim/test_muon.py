import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.optim import AdamW, Muon
from tfm.optim.schedule import Constant

LETTERS = {'embed': 'VD', 'q': 'LDNH', 'o': 'LNHD', 'up': 'LEDF', 'norm': 'LD', 'bias': 'LNH'}
SIZES = {'L': 3, 'V': 11, 'D': 16, 'N': 2, 'H': 6, 'F': 24, 'E': 2}


def drawn(letters):
  keys = jax.random.split(jax.random.key(0), len(letters))
  return {
    n: jax.random.normal(k, [SIZES[c] for c in x])
    for k, (n, x) in zip(keys, letters.items(), strict=True)
  }


def direction(spec, grads, letters):
  tx = spec.make(10, letters)
  return jax.jit(tx.update)(grads, tx.init(grads), grads)[0]


@pytest.fixture(scope='module')
def updates():
  return direction(Muon(lr=1.0, schedule=Constant(), clip=None), drawn(LETTERS), LETTERS)


def test_update_of_every_layer_and_expert_is_near_orthogonal(updates):
  matrices = [
    (updates['q'].reshape(3, 16, 12), 1.0),
    (updates['o'].reshape(3, 12, 16), (16 / 12) ** 0.5),
    (updates['up'].reshape(6, 16, 24), (24 / 16) ** 0.5),
  ]
  for matrix, scale in matrices:
    values = np.linalg.svd(matrix / scale, compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_stacked_layer_is_updated_independently(updates):
  spec = Muon(lr=1.0, schedule=Constant(), clip=None)
  alone = direction(spec, {'q': drawn(LETTERS)['q'][1].reshape(16, 12)}, {'q': 'DF'})
  np.testing.assert_allclose(updates['q'][1].reshape(16, 12), alone['q'], atol=1e-5)


def test_other_parameters_use_adamw_with_a_separate_rate():
  grads = drawn(LETTERS)
  spec = Muon(lr=0.5, schedule=Constant(), adam_lr=0.01, adam=('up',), clip=None)
  adam = direction(AdamW(lr=0.01, schedule=Constant(), decay=0.0, clip=None), grads, LETTERS)
  mixed = direction(spec, grads, LETTERS)
  for name in ('embed', 'norm', 'bias', 'up'):
    np.testing.assert_allclose(mixed[name], adam[name], rtol=1e-5)
  assert spec.uses_muon(LETTERS) == {n: n in ('q', 'o') for n in LETTERS}


def test_constant_rms_does_not_depend_on_the_shape():
  updates = direction(
    Muon(lr=1.0, schedule=Constant(), clip=None, rms=0.2), drawn(LETTERS), LETTERS
  )
  for name in ('q', 'o', 'up'):
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(updates[name] ** 2)), 0.2, rtol=0.2)
