"""Ids outside a table are errors; traced ids are not checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tfm
from tfm import zoo
from tfm.core import errors
from tfm.model.transformer import apply, init


@pytest.fixture(scope='module')
def bert():
  spec = zoo.tiny(zoo.get('bert-base'))
  return spec, init(spec, jax.random.key(0))


def _ids(spec, value):
  ids = np.zeros((2, 4), np.int32)
  ids[1, 2] = spec.vocab + value if value >= 0 else value
  return ids


@pytest.mark.parametrize('value', [-1, -100, 0, 7])
@pytest.mark.parametrize('kind', [np.asarray, jnp.asarray, np.ndarray.tolist])
def test_ids_outside_the_vocabulary_are_errors(bert, value, kind):
  spec, params = bert
  ids = _ids(spec, value)
  with pytest.raises(
    errors.UserError,
    match=rf'input_ids is {ids[1, 2]} at \[1, 2\]\. Expected token ids of at least 0',
  ):
    apply(spec, params, input_ids=kind(ids))


def test_masked_out_ids_are_checked(bert):
  spec, params = bert
  ids, mask = _ids(spec, -100), np.ones((2, 4), np.int32)
  mask[1, 2] = 0
  with pytest.raises(errors.UserError, match='also where the attention mask is 0'):
    apply(spec, params, input_ids=ids, attention_mask=mask)


@pytest.mark.parametrize(
  ('name', 'value', 'kind'),
  [('token_type_ids', 2, 'token types'), ('position_ids', -1, 'positions')],
)
def test_type_and_position_ids_are_checked(bert, name, value, kind):
  spec, params = bert
  other = np.zeros((2, 4), np.int32)
  other[0, 3] = value
  with pytest.raises(
    errors.UserError,
    match=rf'{name} is {value} at \[0, 3\]\. Expected {kind} of at least 0 and below',
  ):
    apply(spec, params, input_ids=np.zeros((2, 4), np.int32), **{name: other})


def test_lists_of_ids_equal_arrays(bert):
  spec, params = bert
  run = lambda ids: tfm.apply(spec, params, input_ids=ids)['last_hidden_state']
  np.testing.assert_array_equal(run([[1, 2], [3, 4]]), run(np.array([[1, 2], [3, 4]])))
  with pytest.raises(errors.UserError, match='input_ids has sequences of different lengths'):
    run([[1, 2], [3]])


def test_traced_ids_are_not_checked(bert):
  spec, params = bert
  run = jax.jit(lambda ids: apply(spec, params, input_ids=ids)['last_hidden_state'])
  assert run(_ids(spec, -1)).shape == (2, 4, spec.d_model)
