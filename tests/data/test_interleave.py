import numpy as np
import pytest

from tfm.data.interleave import Interleaving


def _counts(part, k):
  return np.cumsum(part[:, None] == np.arange(k), 0)


@pytest.mark.parametrize('weights', [(2, 1), (1.0,), (0.7, 0.0, 0.2, 0.1), (3, 1e-3, 5, 1, 1)])
def test_counts_follow_the_weights_at_every_example(weights):
  part, index = Interleaving(weights, [None] * len(weights)).assign(0, 3000)
  counts = _counts(part, len(weights))
  shares = np.arange(1, 3001)[:, None] * (np.array(weights) / sum(weights))
  assert np.abs(counts - shares).max() < 2
  # Each part has the examples 0, 1, 2, ... in order.
  np.testing.assert_array_equal(index, counts[np.arange(3000), part] - 1)


@pytest.mark.parametrize('limits', [(None, None, None), (40, None, 300), (10, 10, 10)])
@pytest.mark.parametrize('start', [0, 1, 29, 1_000])
def test_any_range_equals_the_whole_sequence(limits, start):
  mixed = Interleaving((5, 2, 1), limits)
  stop = mixed.end or 1_200
  start = min(start, stop - 1)
  whole, some = mixed.assign(0, stop), mixed.assign(start, stop - start)
  for a, b in zip(whole, some, strict=True):
    np.testing.assert_array_equal(a[start:], b)


def test_counts_stay_exact_after_a_trillion_examples():
  mixed, n = Interleaving((2, 1), (None, None)), 10**12
  part, index = mixed.assign(n, 6)
  _, before = mixed.assign(n - 6, 6)
  assert part.tolist().count(0) == 4
  assert abs(int(index[part == 0][0]) - 2 * n // 3) < 1000
  assert np.diff(np.sort(np.concatenate([before, index]))).max() > 10**11
  assert index[part == 0].tolist() == list(range(index[part == 0][0], index[part == 0][0] + 4))


def test_part_at_its_limit_leaves_the_shares_of_the_others():
  mixed = Interleaving((4, 2, 1), (100, None, None))
  part, index = mixed.assign(0, 4_000)
  assert (part == 0).sum() == 100
  assert index[part == 0].tolist() == list(range(100))
  after = part[np.flatnonzero(part == 0)[-1] + 1 :]
  assert abs((after == 1).mean() - 2 / 3) < 1e-3
  assert mixed.end is None


def test_sequence_ends_when_every_part_is_at_its_limit():
  mixed = Interleaving((1, 3), (7, 50))
  part, _ = mixed.assign(0, mixed.end)
  assert mixed.end == 57
  assert np.bincount(part).tolist() == [7, 50]
