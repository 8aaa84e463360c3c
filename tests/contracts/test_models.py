"""What every model keeps, whatever its parts: rows of every table, their structural fields, and the zoo."""

import jax
import numpy as np
import pytest

from contracts import cases, harness
from tfm.core import config
from tfm.parts.context import Run

CASES = {**cases.rows(), **cases.variants(), **cases.models()}
CLOSE = {'atol': 1e-5, 'rtol': 1e-5}


@pytest.fixture(scope='module', params=CASES, ids=str)
def spec(request):
  return CASES[request.param]


@pytest.fixture(scope='module')
def rows(spec):
  return harness.rows(spec)


@pytest.fixture(scope='module')
def unrolled(spec):
  return harness.gradient(spec, Run(loop='unroll'))


def test_a_config_survives_json(spec):
  assert config.from_json(type(spec), config.to_json(spec)) == spec


def test_a_config_is_valid(spec):
  assert config.validate(spec) is spec


def test_numbers_are_finite_even_where_rows_are_padded(rows):
  assert np.isfinite(rows).all()


def test_tokens_reach_exactly_where_the_masks_say(spec, rows):
  if not spec.apart:
    return
  sight, j = harness.sight(spec), harness.CHANGED
  moved = np.abs(rows[0] - rows[1]).max(-1)
  assert (moved[~sight[:, j]] < 1e-6).all(), 'a token is seen where no mask allows it'
  assert (moved[sight[:, j]] > 1e-6).all(), 'a token is not seen where the masks allow it'


def test_later_tokens_do_not_reach_back_in_a_causal_model(spec, rows):
  if spec.causal:
    j = harness.CHANGED
    np.testing.assert_array_equal(rows[0, :j], rows[1, :j])


def test_padded_equals_packed_equals_alone(spec, rows):
  if not spec.apart:
    return
  long, short, T = harness.LONG, harness.SHORT, harness.T
  alone = harness.alone(spec)
  np.testing.assert_allclose(rows[2, T - long :], alone, **CLOSE, err_msg='padded left')
  np.testing.assert_allclose(rows[3, :long], alone, **CLOSE, err_msg='padded right')
  np.testing.assert_allclose(rows[4, short:], alone, **CLOSE, err_msg='packed second')
  np.testing.assert_allclose(rows[5, :short], rows[4, :short], **CLOSE, err_msg='packed first')


def test_a_prompt_and_then_a_token_at_a_time_equals_the_whole_row(spec, rows):
  if (stepped := harness.stepped(spec)) is not None:
    np.testing.assert_allclose(stepped[:2], rows[:2], **CLOSE)
    pad = harness.T - harness.LONG
    np.testing.assert_allclose(stepped[2, pad:], rows[2, pad:], **CLOSE, err_msg='behind padding')


def test_unrolled_equals_scanned(rows, unrolled, spec):
  real = np.asarray(harness.batch(spec)['segment_ids' if spec.encoder is None else 'decoder_segment_ids']) > 0
  np.testing.assert_allclose(np.asarray(unrolled[0])[real], rows[real], **CLOSE)


def test_every_parameter_of_every_layer_gets_a_finite_gradient_that_is_not_zero(spec, unrolled):
  steered = harness.steered(spec)
  for path, g in jax.tree_util.tree_leaves_with_path(unrolled[1]):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    assert np.isfinite(g).all(), name
    if name in steered:
      assert not g.any(), name
      continue
    layers = np.abs(g).reshape(g.shape[0], -1).max(1) if 'segment_' in name else np.abs(g).max(keepdims=True)
    assert (layers > 0).all(), name
