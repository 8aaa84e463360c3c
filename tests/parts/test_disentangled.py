"""Disentangled attention: distances share vectors as its authors' do, kernels agree, and what
cannot be is refused.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts import cases, harness
from tfm.core import config, errors
from tfm.model.spec import Block, Segment
from tfm.parts.attend import Blockwise
from tfm.parts.context import Run
from tfm.parts.mask import Mask
from tfm.parts.mixer import Disentangled
from tfm.parts.mixer.disentangled import Distances
from tfm.parts.tokeninfo import TokenInfo


def _rows(distances, n):
  info = TokenInfo(jnp.arange(n)[None], jnp.ones((1, n), jnp.int32))
  return np.asarray(distances.rows(info.rows(), info.columns()))[0]


def test_near_distances_have_a_vector_each_and_far_ones_share_the_last():
  rows = _rows(Distances(3), 9)
  i, j = np.indices(rows.shape)
  np.testing.assert_array_equal(rows, np.clip(i - j + 3, 0, 5))


def test_logarithmic_buckets_are_exact_for_half_of_the_span_and_grow_beyond():
  away = _rows(Distances(8, 64), 64)[:, 0] - 8
  assert list(away[:5]) == [0, 1, 2, 3, 4]
  assert (np.diff(away[4:]) >= 0).all()
  assert away[63] == 7
  np.testing.assert_array_equal(_rows(Distances(8, 64), 64)[0, 1:] - 8, -away[1:])


def test_tiles_give_the_numbers_of_the_whole():
  spec = cases.decoder(Block(Disentangled(4, 2, 8, mask=Mask(), distances=Distances(4, 10))))
  said = harness.results(spec, Run(attend=Blockwise(4, 8)))
  np.testing.assert_allclose(said.tiled, said.rows, atol=1e-5)


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'distances': Distances(1)}, r'span=1 tells no distance from another\. Expected at least 2'),
    (
      {'distances': Distances(8, 5)},
      r'far=5 leaves no distance to share vectors\. Expected more than 5, or none',
    ),
    ({'terms': ('p2p',)}, r"terms=\('p2p',\) are not those there are\. Expected c2p, p2c or both"),
  ],
)
def test_what_tells_nothing_is_refused(fields, said):
  with pytest.raises(errors.ConfigError, match=said):
    config.validate(cases.disentangled(**fields))


def test_layers_that_would_share_different_things_are_refused():
  one, other = (Block(Disentangled(4, distances=Distances(n))) for n in (4, 5))
  spec = dataclasses.replace(cases.decoder(), segments=(Segment((one, other)),))
  with pytest.raises(errors.ConfigError, match='mixers of one tower would share different modules'):
    config.validate(spec)
