"""Contracts of all models: every two parts together, their structural fields, and the zoo."""

import re

import jax
import numpy as np
import pytest

from tests.contracts import cases, harness
from tfm.core import config
from tfm.model.spec import blocks
from tfm.parts.mixer import GatedConv

CASES = cases.all_cases()
#: Published models are also compared with their originals in tests/hub.
large_if_published = pytest.mark.large(when=lambda case: case.startswith('zoo='))


@pytest.fixture(scope='module', params=CASES, ids=str)
def case(request):
  return CASES[request.param]


@pytest.fixture(scope='module')
def spec(case):
  return case.spec


@pytest.fixture(scope='module')
def results(case):
  return harness.results(case.spec, case.run, case.remat, case.backward)


@pytest.fixture(scope='module')
def grads(case, results):
  if not case.backward:
    pytest.skip(
      'the large group, as autodiff joins these parts: bash scripts/test.sh --all runs it too'
    )
  return results.grads


@pytest.fixture(scope='module')
def close(spec, results):
  # Without norms, squares and gates amplify rounding in proportion to the logits.
  return {'atol': 3e-5 * max(1, float(np.abs(results.logits).max())), 'rtol': 1e-5}


def test_config_is_valid_and_survives_json(spec):
  assert config.validate(spec) is spec
  assert config.from_json(type(spec), config.to_json(spec)) == spec


@large_if_published
def test_outputs_depend_exactly_on_unmasked_tokens(spec, results):
  assert np.isfinite(results.logits).all(), 'not finite, possibly at padding'
  logits, j = results.logits, harness.CHANGED
  if spec.causal:
    np.testing.assert_array_equal(logits[0, :j], logits[1, :j])
  if spec.apart:
    reach = harness.reach(spec)
    moved = np.abs(logits[0] - logits[1]).max(-1)
    least = 1e-6 * min(1.0, float(np.abs(logits).max()))  # some heads return small logits
    assert (moved[~reach[:, j]] < least).all(), 'an output depends on a masked out token'
    reached = reach[:, j]
    if any(isinstance(m, GatedConv) for block in blocks(spec) for m in block.mixers):
      # After several convolutions of small numbers the effect is below the precision of float32.
      reached = reached & (np.arange(len(reached)) - j < GatedConv().size)
    assert (moved[reached] > least / 10).all(), 'an output is independent of an allowed token'


@large_if_published
def test_padded_equals_packed_equals_alone(spec, results, close):
  if not spec.apart:
    return
  logits, long, short, T = results.logits, harness.LONG, harness.SHORT, harness.T
  # In a causal stack without padding, the first tokens equal the shorter sequence. The source has
  # no padding there.
  alone = logits[0, :long] if harness.decodable(spec) else results.reference
  np.testing.assert_allclose(logits[2, T - long :], alone, **close, err_msg='padded left')
  np.testing.assert_allclose(logits[3, :long], alone, **close, err_msg='padded right')
  np.testing.assert_allclose(logits[4, short:], alone, **close, err_msg='packed second')
  if spec.encoder is None:
    np.testing.assert_allclose(
      logits[5, :short], logits[4, :short], **close, err_msg='packed first'
    )


@large_if_published
def test_cached_decoding_equals_the_full_forward_pass(case, spec, results, close):
  if not harness.decodable(spec):
    return
  pad = harness.T - harness.LONG
  unpadded = results.reference[0], results.logits[0]
  padded = results.reference[1, pad:], results.logits[2, pad:]
  if not case.run.cache.exact:  # after rounding, a router can make other choices
    assert all(np.linalg.norm(a - b) < 0.3 * np.linalg.norm(b) for a, b in (unpadded, padded))
    return
  np.testing.assert_allclose(*unpadded, **close)
  np.testing.assert_allclose(*padded, **close, err_msg='after padding')


@large_if_published
def test_unrolled_equals_scanned(spec, results, close):
  if not spec.apart:  # for other models, `reference` is unrolled and compared above
    real = harness.real(spec)
    np.testing.assert_allclose(results.reference[real], results.logits[real], **close)


@large_if_published
def test_kernels_and_remat_policies_give_equal_logits(results, spec, close):
  if results.tiled is not None:
    real = harness.real(spec)
    np.testing.assert_allclose(results.tiled[real], results.logits[real], **close)


@large_if_published
def test_all_gradients_of_all_layers_are_finite_and_nonzero(spec, results, grads):
  for name, g in _named(grads):
    assert np.isfinite(g).all(), name
    if name in results.steered:
      assert not g.any(), name
      continue
    layers = np.abs(g).reshape(len(g), -1).max(1) if _layered(spec, name) else np.abs(g).max()
    assert (layers > 0).all(), name


@large_if_published
def test_kernels_and_remat_policies_give_equal_gradients(results, grads):
  most = max(np.abs(g).max() for _, g in _named(grads))
  if results.tiled_grads is None:
    return
  for (name, g), (_, other) in zip(_named(grads), _named(results.tiled_grads), strict=True):
    # Gradients that are 0 up to rounding, such as of a key bias without positions, are compared
    # with the largest gradient. The tolerance is for reversible stacks without norms.
    atol = 5e-4 * np.abs(g).max() + 1e-6 * most
    np.testing.assert_allclose(other, g, atol=atol, rtol=1e-4, err_msg=name)


def _layered(spec, name):
  """Return whether a parameter has a layer axis, as in segments that are not shared."""
  if (at := re.search(r'segment_(\d+)/', name)) is None:
    return False
  stack = spec.encoder if name.startswith('encoder/') else spec
  return name.startswith('mtp/') or not stack.segments[int(at[1])].shared


def _named(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf) for path, leaf in leaves]
