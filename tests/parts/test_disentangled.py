"""Disentangled attention: distance buckets, kernels and errors."""

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


def test_far_distances_share_the_last_vector():
  rows = _rows(Distances(3), 9)
  i, j = np.indices(rows.shape)
  np.testing.assert_array_equal(rows, np.clip(i - j + 3, 0, 5))


def test_logarithmic_buckets_are_exact_for_half_the_span():
  away = _rows(Distances(8, 64), 64)[:, 0] - 8
  assert list(away[:5]) == [0, 1, 2, 3, 4]
  assert (np.diff(away[4:]) >= 0).all()
  assert away[63] == 7
  np.testing.assert_array_equal(_rows(Distances(8, 64), 64)[0, 1:] - 8, -away[1:])


def test_blockwise_matches_dense_disentangled_attention():
  spec = cases.decoder(Block(Disentangled(4, 2, 8, mask=Mask(), distances=Distances(4, 10))))
  answers = harness.results(spec, Run(attend=Blockwise(4, 8)))
  np.testing.assert_allclose(answers.tiled, answers.logits, atol=1e-5)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'distances': Distances(1)}, r'span=1 is too small\. Expected at least 2'),
    (
      {'distances': Distances(8, 5)},
      r'far=5 leaves no logarithmic buckets\. Expected more than 5, or none',
    ),
    ({'terms': ('p2p',)}, r"terms=\('p2p',\) is unknown\. Expected c2p, p2c or both"),
  ],
)
def test_invalid_distances_and_terms_are_errors(fields, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(cases.disentangled(**fields))


def test_layers_with_different_shared_vectors_are_errors():
  one, other = (Block(Disentangled(4, distances=Distances(n))) for n in (4, 5))
  spec = dataclasses.replace(cases.decoder(), segments=(Segment((one, other)),))
  with pytest.raises(
    errors.ConfigError, match='the mixers of one tower share a module with different'
  ):
    config.validate(spec)
