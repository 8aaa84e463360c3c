import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.optim.accumulate import accumulate, interleaved


def loss(params, batch, key):
  y = jnp.tanh(batch['x'] @ params['w'])
  nats = jnp.sum(batch['weights'] * y**2)
  drawn = 0.0 if key is None else jax.random.uniform(key)
  return nats, {
    'weights': batch['weights'].sum(),
    'rows': batch['x'].shape[0] * jnp.int32(1),
    'drawn': drawn,
  }


grads = jax.value_and_grad(loss, has_aux=True)


@pytest.fixture(scope='module')
def case():
  key = jax.random.key(0)
  batch = {
    'x': jax.random.normal(key, [12, 5]),
    'weights': (jnp.arange(12) % 3 > 0).astype(jnp.float32),
  }
  return {'w': jax.random.normal(key, [5])}, batch


@pytest.mark.parametrize('n', [1, 2, 3, 12])
def test_micro_batches_add_up_to_the_whole_batch(case, n):
  (nats, aux), g = jax.jit(accumulate(grads, n))(*case, None)
  (nats_1, aux_1), g_1 = grads(*case, None)
  np.testing.assert_allclose(nats, nats_1, rtol=1e-6)
  np.testing.assert_allclose(g['w'], g_1['w'], rtol=1e-5)
  assert aux['weights'] == aux_1['weights'] == 8
  assert aux['rows'] == 12


def test_each_micro_batch_uses_a_different_key(case):
  key = jax.random.key(7)
  (_, aux), _ = jax.jit(accumulate(grads, 3))(*case, key)
  expected = sum(jax.random.uniform(jax.random.fold_in(key, i)) for i in range(3))
  np.testing.assert_allclose(aux['drawn'], expected, rtol=1e-6)


def test_sums_of_16_bit_gradients_are_float32():
  ones = lambda params, batch, key: ((batch.sum(), {}), {'w': batch.sum().astype(jnp.bfloat16)})
  batch = jnp.concatenate([jnp.full([1], 256.0), jnp.ones([64])])
  (_, _), g = accumulate(ones, 65)({}, batch, None)
  assert g['w'].dtype == jnp.bfloat16
  assert g['w'] == 320  # in bfloat16 alone 256 + 1 stays 256


def test_micro_batches_take_every_nth_example():
  np.testing.assert_array_equal(interleaved(jnp.arange(8), 2), [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_batch_that_cannot_be_split_is_an_error(case):
  with pytest.raises(
    UserError,
    match=r'^optim.accumulate: 5 micro-batches do not divide a batch of 12 examples. Expected a',
  ):
    accumulate(grads, 5)(*case, None)
