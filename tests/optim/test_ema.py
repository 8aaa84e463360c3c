import jax.numpy as jnp
import numpy as np

from tfm.optim import ema


def test_average_starts_at_a_copy_and_warms_up():
  params = {'w': jnp.array([2.0], jnp.bfloat16)}
  average = ema.init(params)
  assert average['w'].dtype == jnp.float32
  after = ema.update(average, {'w': jnp.array([12.0])}, 0, 0.999)
  np.testing.assert_allclose(after['w'], 0.1 * 2 + 0.9 * 12, rtol=1e-6)


def test_average_ends_at_its_decay():
  after = ema.update({'w': jnp.array([1.0])}, {'w': jnp.array([2.0])}, 10**6, 0.9)
  np.testing.assert_allclose(after['w'], 1.1, rtol=1e-6)


def test_average_does_not_share_memory_with_the_parameters():
  w = jnp.ones([3])
  average = ema.init({'w': w})
  w.delete()
  np.testing.assert_array_equal(average['w'], 1.0)
