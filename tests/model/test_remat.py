import jax
import numpy as np
import pytest

from tests.contracts.cases import mixing
from tfm.core import config, errors
from tfm.model import transformer
from tfm.model.remat import check, offloads, remat
from tfm.parts.attend.blockwise import Blockwise
from tfm.parts.context import Run
from tfm.parts.stored_names import NAMES

SPEC = mixing()


def _loss(policy):
  run = Run(remat=policy, attend=Blockwise(8))
  ids = jax.random.randint(jax.random.key(1), (2, 16), 0, SPEC.vocab)

  def loss(p):
    return transformer.apply(SPEC, p, run=run, input_ids=ids)['logits'].var()

  return loss, transformer.init(SPEC, jax.random.key(0))


def test_stored_activations_change_no_gradient():
  loss, params = _loss('none')
  expected = jax.jit(jax.grad(loss))(params)
  got = jax.jit(jax.grad(_loss('+'.join(NAMES))[0]))(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, expected)


def _stored(policy):
  """Return the number of stored numbers between the passes."""
  loss, params = _loss(policy)
  linear = jax.eval_shape(lambda p: jax.linearize(loss, p)[1], params)
  return sum(x.size for x in jax.tree.leaves(linear))


@pytest.mark.parametrize(('policy', 'floats'), [('mixer', 32), ('attention', 36)])
def test_named_activations_are_stored(policy, floats):
  # 2 x 16 tokens in 2 layers: 32 floats of a hidden state, and the log-sum-exp of 4 heads.
  assert _stored(policy) - _stored('full') == 2 * 2 * 16 * floats


def test_policies_of_names_are_checked():
  assert not list(check('attention+residual@host'))
  assert not list(check('full'))
  for wrong in ('ful', 'attention+x', 'full+attention', 'attention@device'):
    assert "remat: is '" in next(check(wrong))
  with pytest.raises(errors.ConfigError, match=r"remat: is 'attention\+x'. Expected none"):
    remat(lambda x: x, 'attention+x')


def test_host_suffix_offloads():
  assert offloads('attention+residual@host')
  assert not offloads('attention')


def test_number_of_slices_is_checked():
  with pytest.raises(errors.ConfigError, match='ffn_slices=0 is too small'):
    config.validate(Run(ffn_slices=0))
