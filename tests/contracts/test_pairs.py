"""Parts of different kinds, every two together somewhere, in each topology: packed, padded and decoded alike."""

import itertools

import numpy as np
import pytest

from contracts import cases, harness
from tfm.core import config
from tfm.parts.attend import Blockwise
from tfm.parts.context import Run

CASES = {k: v for topology in ('decoder', 'encoder', 'encdec') for k, v in cases.pairs(topology).items()}


def test_the_chosen_rows_cover_every_pair():
  levels = {'a': [1, 2, 3], 'b': ['x', 'y'], 'c': [None, 0, 1, 2], 'd': [True, False]}
  rows = cases.covering(levels)
  for a, b in itertools.combinations(levels, 2):
    met = {(row[a], row[b]) for row in rows}
    assert met == set(itertools.product(levels[a], levels[b]))
  assert len(rows) < 3 * 2 * 4 * 2 / 2


@pytest.mark.parametrize('name', CASES)
def test_parts_of_every_two_kinds_go_together(name):
  spec = config.validate(CASES[name])
  rows, alone = harness.rows(spec), harness.alone(spec)
  assert np.isfinite(rows).all()
  sight, j = harness.sight(spec), harness.CHANGED
  moved = np.abs(rows[0] - rows[1]).max(-1)
  assert (moved[~sight[:, j]] < 1e-6).all()
  assert (moved[sight[:, j]] > 1e-6).all()
  np.testing.assert_allclose(rows[2, harness.T - harness.LONG :], alone, atol=2e-5, rtol=1e-5)
  np.testing.assert_allclose(rows[4, harness.SHORT :], alone, atol=2e-5, rtol=1e-5)
  tiled = harness.rows(spec, Run(attend=Blockwise(4, 8)))
  np.testing.assert_allclose(tiled, rows, atol=2e-5, rtol=1e-5, err_msg='tile by tile')
  if name.startswith('decoder'):
    np.testing.assert_allclose(harness.stepped(spec)[:2], rows[:2], atol=2e-5, rtol=1e-5)
