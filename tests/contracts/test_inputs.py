"""Contracts of models with other inputs than text, such as images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts import cases
from tfm.core import config
from tfm.model import inputs, transformer
from tfm.model.spec import MAIN, Model
from tfm.parts.context import Run

CASES = cases.others()
BATCH, LENGTH = 3, 12


@pytest.fixture(scope='module', params=CASES, ids=str)
def spec(request):
  return CASES[request.param]


@functools.lru_cache(maxsize=1)
def _given(spec: Model):
  """Return random parameters and inputs."""
  rng = np.random.default_rng(0)

  def draw(x):
    if jnp.issubdtype(x.dtype, jnp.integer):
      return rng.integers(
        1, min(n for n in map(_vocab(spec), ('', *spec.towers)) if n), x.shape, np.int32
      )
    return rng.standard_normal(x.shape, np.float32)

  def leaf(path, x):
    noise = rng.standard_normal(x.shape, np.float32)
    return 1 + 0.1 * noise if path[-1].key == 'scale' else 0.2 * noise

  params = jax.tree_util.tree_map_with_path(leaf, transformer.param_shapes(spec))
  return params, {name: draw(x) for name, x in inputs.shapes(spec, BATCH, LENGTH).items()}


def _vocab(spec: Model):
  return lambda name: spec.tower(name).vocab


def _outputs(spec: Model) -> list[str]:
  """Return the output names of the main tower: of its heads, or its last hidden state."""
  heads = [name for head in spec.heads.values() for name in head.returns('lm' not in spec.heads)]
  return heads or ['last_hidden_state']


def _loss(spec, run, params, given):
  out = transformer.apply(spec, params, run=run, **given)
  found = {name: out[name] for name in _outputs(spec)}
  rng = np.random.default_rng(1)
  return sum(jnp.sum(rng.standard_normal(x.shape, np.float32) * x) for x in found.values()), found


@functools.lru_cache(maxsize=1)
def _results(spec: Model):
  """Return outputs and gradients, scanned, and unrolled with rematerialisation."""
  params, given = _given(spec)
  runs = Run(), Run(loop='unroll', remat='full')
  grad = lambda run: jax.jit(jax.grad(functools.partial(_loss, spec, run), has_aux=True))
  return [jax.device_get(grad(run)(params, given)) for run in runs]


def test_config_is_valid_and_survives_json(spec):
  assert config.validate(spec) is spec
  assert config.from_json(Model, config.to_json(spec)) == spec


def test_outputs_have_the_declared_shapes(spec):
  found = _results(spec)[0][1]
  assert all(np.isfinite(x).all() and len(x) == BATCH for x in found.values())
  params, given = _given(spec)
  out = jax.eval_shape(lambda p, x: transformer.apply(spec, p, **x), params, given)
  if all(s.resample is None for s in spec.segments):
    assert out['last_hidden_state'].shape == (
      BATCH,
      spec.tower(MAIN).embed.tokens(LENGTH),
      spec.d_out,
    )


def test_examples_are_independent_of_their_batch(spec):
  (params, given), found = _given(spec), _results(spec)[0][1]
  alone = jax.jit(lambda p, x: _loss(spec, Run(), p, x)[1])(
    params, {n: x[1:2] for n, x in given.items()}
  )
  for name, x in alone.items():
    expected = found[name][1]
    if x.shape[1:] != expected.shape:  # logits of pairs have the batch on two axes
      expected = expected[1:2]
    np.testing.assert_allclose(
      x[0], expected, atol=2e-5 * max(1, np.abs(found[name]).max()), err_msg=name
    )


def test_unrolled_with_remat_equals_scanned(spec):
  (grads, found), (other_grads, other) = _results(spec)
  for name, x in found.items():
    np.testing.assert_allclose(other[name], x, atol=2e-5 * max(1, np.abs(x).max()), err_msg=name)
  most = max(np.abs(g).max() for g in jax.tree.leaves(grads))
  same = lambda a, b: np.testing.assert_allclose(
    b, a, atol=5e-4 * np.abs(a).max() + 1e-6 * most, rtol=1e-4
  )
  jax.tree.map(same, grads, other_grads)


def test_every_parameter_gets_a_finite_gradient(spec):
  for path, g in jax.tree_util.tree_leaves_with_path(_results(spec)[0][0]):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    assert np.isfinite(g).all(), name
    assert g.any() or name == 'embed/mask', name
