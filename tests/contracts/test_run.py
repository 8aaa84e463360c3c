"""A run's choices change no numbers: small tiles, that not all models are asked with; and what is
refused.
"""

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
def test_tiles_that_are_smaller_than_most_models_are_asked_with_give_the_same_numbers(model):
  said = harness.answers(SPECS[model], Run(attend=Pallas(4, 8, interpret=True)))
  np.testing.assert_allclose(
    said.tiled, said.rows, atol=2e-5 * max(1, np.abs(said.rows).max()), rtol=1e-5
  )
  # Beside the largest of its array: what is small there is made of what is not.
  same = lambda a, b: np.testing.assert_allclose(
    a, b, atol=5e-4 * np.abs(b).max() + 1e-6, rtol=1e-4
  )
  jax.tree.map(same, said.tiled_grads, said.grads)


def test_an_unknown_policy_and_an_unknown_loop_are_refused():
  with pytest.raises(errors.ConfigError, match=r"unknown remat policy 'ful'\. Did you mean 'full'"):
    remat(lambda x: x, 'ful')
  with pytest.raises(errors.ConfigError, match=r"loop='scanned' is not one of scan, unroll"):
    config.validate(Run(loop='scanned'))
