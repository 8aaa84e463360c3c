import hypothesis
from hypothesis import strategies as st
import numpy as np

from tfm.data import stateless_rng


@hypothesis.given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@hypothesis.settings(max_examples=50, deadline=None)
def test_permute_is_a_permutation(n, key):
  assert sorted(stateless_rng.permute(np.arange(n), n, key).tolist()) == list(range(n))


def test_permutations_of_different_keys_are_independent():
  n = 10_000
  a, b = (stateless_rng.permute(np.arange(n), n, key) for key in (1, 2))
  assert (a == b).sum() < 8  # one is expected
  assert (np.diff(a) == 1).sum() < 8
  assert abs(np.corrcoef(a, np.arange(n))[0, 1]) < 4 / n**0.5


def test_large_range_is_permuted_without_memory():
  out = stateless_rng.permute(np.arange(1000), 10**12, 3)
  assert len(set(out.tolist())) == 1000
  assert out.max() < 10**12


def test_uniform_moments_are_right_and_streams_independent():
  keys = stateless_rng.mix(0, np.arange(100))
  a, b = stateless_rng.uniform(keys, 'a', 1000), stateless_rng.uniform(keys, 'b', 1000)
  n = a.size
  assert 0 <= a.min() < a.max() < 1
  assert abs(a.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
  assert abs((a * b).mean() - 0.25) < 4 * (7 / 144 / n) ** 0.5
  assert abs((a[:, 1:] * a[:, :-1]).mean() - 0.25) < 4 * (7 / 144 / n) ** 0.5


def test_numbers_do_not_depend_on_the_batch():
  keys = stateless_rng.mix(7, np.arange(8))
  np.testing.assert_array_equal(
    stateless_rng.uniform(keys, 's', 5)[3:4], stateless_rng.uniform(keys[3:4], 's', 5)
  )


def test_random_numbers_never_change_between_versions():
  # Resumed runs depend on these values.
  assert stateless_rng.mix(1, 2).tolist() == [13608149317741381227]
  assert stateless_rng.permute(np.arange(5), 5, 1).tolist() == [4, 2, 1, 0, 3]
