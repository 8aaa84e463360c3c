"""Options of a run do not affect results: small tiles, and errors of unknown options."""

import jax
import numpy as np
import pytest

from tests.contracts import harness
from tfm import zoo
from tfm.core import config, errors
from tfm.model.remat import remat
from tfm.parts.attend import Pallas
from tfm.parts.context import Run

SPECS = {
  'decoder': zoo.tiny(zoo.get('llama2-70b')),
  'encoder-decoder': zoo.tiny(zoo.get('t5-v1.1-small')),
}


@pytest.mark.parametrize('model', SPECS)
@pytest.mark.large(when=lambda model: model == 'encoder-decoder')
def test_small_pallas_tiles_give_equal_results(model):
  results = harness.results(SPECS[model], Run(attend=Pallas(4, 8, interpret=True)))
  np.testing.assert_allclose(
    results.tiled, results.logits, atol=2e-5 * max(1, np.abs(results.logits).max()), rtol=1e-5
  )
  # Relative to the largest element of each array.
  same = lambda a, b: np.testing.assert_allclose(
    a, b, atol=5e-4 * np.abs(b).max() + 1e-6, rtol=1e-4
  )
  jax.tree.map(same, results.tiled_grads, results.grads)


def test_unknown_remat_policy_and_loop_are_errors():
  with pytest.raises(errors.ConfigError, match=r"unknown remat policy 'ful'\. Did you mean 'full'"):
    remat(lambda x: x, 'ful')
  with pytest.raises(
    errors.ConfigError, match=r"loop='scanned' is unknown. Expected scan or unroll"
  ):
    config.validate(Run(loop='scanned'))
