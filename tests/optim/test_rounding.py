import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tfm.core import config, errors
from tfm.core.precision import Precision
from tfm.optim import SGD, AdamW
from tfm.optim.letters import state_letters
from tfm.optim.rounding import stochastic_round
from tfm.optim.schedule import Constant
from tfm.train.experiment import Experiment

LETTERS = {'w': 'DF', 'b': 'F'}


def _params(dtype='bfloat16'):
  return {'w': jnp.ones((8, 16), dtype), 'b': jnp.full(16, 2.0, dtype)}


def _run(optim, steps, params):
  tx = optim.make(steps, LETTERS)
  grads = jax.tree.map(jnp.ones_like, params)

  def step(carry, _):
    params, state = carry
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps)[0])
  return run(params)


def test_stochastic_rounding_keeps_the_expected_value():
  x = jnp.full(100_000, 1 + 2.0**-10)  # a quarter of the way to the next bfloat16
  rounded = stochastic_round(x, jax.random.key(0)).astype(jnp.float32)
  assert set(np.unique(rounded)) == {1.0, 1 + 2.0**-7}
  np.testing.assert_allclose(rounded.mean(), x[0], atol=1e-4)


def test_stochastic_rounding_keeps_exact_and_infinite_numbers():
  x = jnp.array([0.0, -1.5, jnp.inf, -jnp.inf, 3e38], jnp.float32)
  np.testing.assert_array_equal(
    stochastic_round(x[:4], jax.random.key(0)).astype(jnp.float32), x[:4]
  )
  assert jnp.isnan(stochastic_round(jnp.array([jnp.nan]), jax.random.key(0)))[0]


@pytest.mark.parametrize(('rounding', 'moves'), [('nearest', 0), ('stochastic', 1), ('master', 1)])
def test_small_updates_need_float32(rounding, moves):
  optim = SGD(2e-4, Constant(0), clip=None, momentum=None, rounding=rounding)
  params, _ = _run(optim, 200, _params())
  moved = 1 - params['w'].astype(jnp.float32).mean()
  np.testing.assert_allclose(moved, 0.04 * moves, atol=4e-3)
  assert params['w'].dtype == jnp.bfloat16


def test_master_copy_equals_training_in_float32():
  optim = AdamW(1e-3, Constant(0))
  expected, _ = _run(optim, 20, _params('float32'))
  params, state = _run(dataclasses.replace(optim, rounding='master'), 20, _params())
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.master, expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, b.astype(a.dtype)), params, state.master
  )


@pytest.mark.parametrize('rounding', ['stochastic', 'master'])
def test_states_of_16_bit_parameters_have_letters(rounding):
  tx = AdamW(rounding=rounding).make(10, LETTERS)
  letters = state_letters(tx, _params(), LETTERS)
  assert letters.inner['rule'].mu == LETTERS
  assert letters.master == (LETTERS if rounding == 'master' else ())
  assert letters.step == ''


def test_second_moment_in_bfloat16_follows_float32():
  params = _params('float32')
  exact, _ = _run(AdamW(1e-2, Constant(0), b2=0.999), 300, params)
  got, state = _run(AdamW(1e-2, Constant(0), b2=0.999, v_dtype='bfloat16'), 300, params)
  assert state['rule'].nu['w'].dtype == jnp.bfloat16
  for name in exact:
    np.testing.assert_allclose(got[name], exact[name], atol=0.1)
    np.testing.assert_allclose(got[name].mean(), exact[name].mean(), atol=0.01)


def test_rounding_is_refused_for_float32_parameters():
  with pytest.raises(errors.ConfigError, match=r'optim\.rounding: is master, but parameters'):
    config.validate(Experiment(optim=AdamW(rounding='master')))
  config.validate(Experiment(optim=AdamW(rounding='master'), precision=Precision('bfloat16')))


def test_unknown_dtype_of_a_moment_is_an_error():
  with pytest.raises(errors.ConfigError, match="v_dtype: unknown dtype 'int4'"):
    config.validate(AdamW(v_dtype='int4'))
