"""What every model keeps, whatever its parts: every two rows of two tables, their structural
fields, and the zoo.
"""

import re

import jax
import numpy as np
import pytest

from tests.contracts import cases, harness
from tfm.core import config
from tfm.model.spec import blocks
from tfm.parts.mixer import GatedConv

CASES = cases.all_cases()
#: The numbers of published models are also compared in tests/hub.
large_if_published = pytest.mark.large(when=lambda case: case.startswith('zoo='))


@pytest.fixture(scope='module', params=CASES, ids=str)
def case(request):
  return CASES[request.param]


@pytest.fixture(scope='module')
def spec(case):
  return case.spec


@pytest.fixture(scope='module')
def said(case):
  return harness.answers(case.spec, case.run, case.remat, case.backward)


@pytest.fixture(scope='module')
def grads(case, said):
  if not case.backward:
    pytest.skip(
      'the large group, as autodiff joins these parts: bash scripts/test.sh --all runs it too'
    )
  return said.grads


@pytest.fixture(scope='module')
def close(spec, said):
  # Squares and gates that no norm tames make much of a rounding, in proportion to what there is.
  return {'atol': 3e-5 * max(1, float(np.abs(said.rows).max())), 'rtol': 1e-5}


def test_a_config_is_valid_and_survives_json(spec):
  assert config.validate(spec) is spec
  assert config.from_json(type(spec), config.to_json(spec)) == spec


@large_if_published
def test_tokens_reach_exactly_where_the_masks_say(spec, said):
  assert np.isfinite(said.rows).all(), 'finite even where rows are padded'
  rows, j = said.rows, harness.CHANGED
  if spec.causal:
    np.testing.assert_array_equal(rows[0, :j], rows[1, :j])
  if spec.apart:
    sight = harness.sight(spec)
    moved = np.abs(rows[0] - rows[1]).max(-1)
    least = 1e-6 * min(1.0, float(np.abs(rows).max()))  # heads may make logits small
    assert (moved[~sight[:, j]] < least).all(), 'a token is seen where no mask allows it'
    reached = sight[:, j]
    if any(isinstance(m, GatedConv) for block in blocks(spec) for m in block.mixers):
      # What passes several convolutions of small numbers is less than float32 resolves.
      reached = reached & (np.arange(len(reached)) - j < GatedConv().size)
    assert (moved[reached] > least / 10).all(), 'a token is not seen where the masks allow it'


@large_if_published
def test_padded_equals_packed_equals_alone(spec, said, close):
  if not spec.apart:
    return
  rows, long, short, T = said.rows, harness.LONG, harness.SHORT, harness.T
  # Of a causal stack without padding the first tokens are what they would be alone; its source is,
  # in any case.
  alone = rows[0, :long] if harness.decodable(spec) else said.beside
  np.testing.assert_allclose(rows[2, T - long :], alone, **close, err_msg='padded left')
  np.testing.assert_allclose(rows[3, :long], alone, **close, err_msg='padded right')
  np.testing.assert_allclose(rows[4, short:], alone, **close, err_msg='packed second')
  if spec.encoder is None:
    np.testing.assert_allclose(rows[5, :short], rows[4, :short], **close, err_msg='packed first')


@large_if_published
def test_a_prompt_and_then_a_token_at_a_time_equals_the_whole_row(case, spec, said, close):
  if not harness.decodable(spec):
    return
  pad = harness.T - harness.LONG
  whole, behind_padding = (said.beside[0], said.rows[0]), (said.beside[1, pad:], said.rows[2, pad:])
  if not case.run.cache.exact:  # a router may choose otherwise, of numbers that are near
    assert all(np.linalg.norm(a - b) < 0.3 * np.linalg.norm(b) for a, b in (whole, behind_padding))
    return
  np.testing.assert_allclose(*whole, **close)
  np.testing.assert_allclose(*behind_padding, **close, err_msg='behind padding')


@large_if_published
def test_unrolled_equals_scanned(spec, said, close):
  if not spec.apart:  # the others are unrolled where they are alone, or read their prompt
    real = harness.real(spec)
    np.testing.assert_allclose(said.beside[real], said.rows[real], **close)


@large_if_published
def test_every_kernel_and_remat_policy_gives_the_same_numbers(said, spec, close):
  if said.tiled is not None:
    real = harness.real(spec)
    np.testing.assert_allclose(said.tiled[real], said.rows[real], **close)


@large_if_published
def test_every_parameter_of_every_layer_gets_a_finite_gradient_that_is_not_zero(spec, said, grads):
  for name, g in _named(grads):
    assert np.isfinite(g).all(), name
    if name in said.steered:
      assert not g.any(), name
      continue
    layers = np.abs(g).reshape(len(g), -1).max(1) if _layered(spec, name) else np.abs(g).max()
    assert (layers > 0).all(), name


@large_if_published
def test_gradients_are_the_same_by_every_kernel_and_whatever_is_kept(said, grads):
  most = max(np.abs(g).max() for _, g in _named(grads))
  if said.tiled_grads is None:
    return
  for (name, g), (_, other) in zip(_named(grads), _named(said.tiled_grads), strict=True):
    # What is nothing but rounding, as a bias of keys without positions, is so beside the others.
    # Streams that are undone, with neither norms nor smooth routes, come nearest to it.
    atol = 5e-4 * np.abs(g).max() + 1e-6 * most
    np.testing.assert_allclose(other, g, atol=atol, rtol=1e-4, err_msg=name)


def _layered(spec, name):
  """Whether a parameter has a layer axis: that of a segment that is not shared."""
  if (at := re.search(r'segment_(\d+)/', name)) is None:
    return False
  stack = spec.encoder if name.startswith('encoder/') else spec
  return name.startswith('mtp/') or not stack.segments[int(at[1])].shared


def _named(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf) for path, leaf in leaves]
