"""Existing parameters are used without running their initializer, if their shape fits."""

from flax import errors
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core.axes import sharded
from tfm.core.module import Module

X = np.ones(3, np.float32)
STARTED = []  # shapes of parameters with a called initializer


class Scaled(Module):
  @nn.compact
  def __call__(self, x):
    def start(key, shape, dtype):
      STARTED.append(shape)
      return jnp.ones(shape, dtype)

    return x * self.param('scale', sharded(start, 'D'), x.shape, jnp.float32)


def test_initializer_is_skipped_for_existing_parameters():
  module = Scaled()
  variables = nn.unbox(module.init(jax.random.key(0), X))
  assert variables['params']['scale'].shape == (3,)
  assert STARTED
  STARTED.clear()
  np.testing.assert_array_equal(module.apply({'params': {'scale': 2 * X}}, X), 2 * X)
  assert STARTED == []


def test_parameter_of_another_shape_is_refused():
  with pytest.raises(errors.ScopeParamShapeError, match=r'scale'):
    Scaled().apply({'params': {'scale': np.ones(4, np.float32)}}, X)
