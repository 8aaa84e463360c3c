"""The factor of queries that grows with their position."""

import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.parts.length_scale import LengthScale


def test_first_queries_are_not_scaled():
  q_BTNH = jnp.ones((1, 4, 2, 3))
  np.testing.assert_array_equal(LengthScale(0.5, 4)(q_BTNH, jnp.arange(4)[None]), q_BTNH)


def test_factor_grows_with_the_logarithm_of_steps():
  q_BTNH, positions_BT = jnp.ones((1, 3, 1, 1)), jnp.asarray([[3, 4, 11]])
  scaled = LengthScale(0.5, 4)(q_BTNH, positions_BT).ravel()
  np.testing.assert_allclose(scaled, [1, 1 + 0.5 * np.log(2), 1 + 0.5 * np.log(3)], rtol=1e-6)


def test_empty_steps_are_errors():
  with pytest.raises(
    errors.ConfigError, match=r'every=0 is not a number of tokens\. Expected at least 1\.'
  ):
    config.validate(LengthScale(every=0))
