"""Parts of different kinds, every two together somewhere: packed, padded, tiled and decoded alike."""

import itertools

import numpy as np
import pytest

from contracts import cases, harness
from tfm.core import config
from tfm.parts.attend import DenseAttention
from tfm.parts.context import Run

CASES = cases.pairs()


def test_the_chosen_rows_cover_every_pair():
  levels = {'a': [1, 2, 3], 'b': ['x', 'y'], 'c': [None, 0, 1, 2], 'd': [True, False]}
  rows = cases.covering(levels)
  for a, b in itertools.combinations(levels, 2):
    met = {(row[a], row[b]) for row in rows}
    assert met == set(itertools.product(levels[a], levels[b]))
  assert len(rows) < 3 * 2 * 4 * 2 / 2


@pytest.mark.parametrize('name', CASES)
def test_parts_of_every_two_kinds_go_together(name):
  spec, run = CASES[name]
  config.validate(spec)
  # No norm tames what squares and gates make of a rounding: 7e-5 from float64, in which all of these are equal.
  close = {'atol': 2e-4 if ',bare,' in name else 2e-5, 'rtol': 1e-5}
  rows, alone = harness.rows(spec, Run(attend=DenseAttention())), harness.alone(spec)
  assert np.isfinite(rows).all()
  sight, j = harness.sight(spec), harness.CHANGED
  moved = np.abs(rows[0] - rows[1]).max(-1)
  assert (moved[~sight[:, j]] < 1e-6).all()
  assert (moved[sight[:, j]] > 1e-6).all()
  np.testing.assert_allclose(rows[2, harness.T - harness.LONG :], alone, **close)
  np.testing.assert_allclose(rows[4, harness.SHORT :], alone, **close)
  np.testing.assert_allclose(harness.rows(spec, run), rows, **close, err_msg='by tiles')
  if spec.causal:
    np.testing.assert_allclose(harness.stepped(spec, run)[:2], rows[:2], **close, err_msg='by steps')
