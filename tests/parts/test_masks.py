"""Masks allow exactly the pairs that their formulas count."""

import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.parts.mask import TABLE, Both, Causal, Mask, Prefix, Segments, Window
from tfm.parts.site import Site, positions

MASKS = {
  **{name: row() for name, row in TABLE.items()},
  'window-4': Window(4),
  'window-4-ahead': Window(4, ahead=True),
  'prefix-3': Prefix(3),
  'causal&window&segments': Causal() & Window(5) & Segments(),
  'prefix&window': Prefix(4) & Window(3),
}


def allowed(mask, n, prefix=None):
  """[n, n] bool: rows are queries."""
  pos = jnp.arange(n)[None]
  site = Site(pos, jnp.ones_like(pos), prefix)
  return np.asarray(mask(site.rows(), site.columns()))[0]


@pytest.mark.parametrize('n', [1, 4, 11])
@pytest.mark.parametrize('name', MASKS)
def test_pairs_are_counted_as_the_predicate_allows_them(name, n):
  assert MASKS[name].pairs(n) == allowed(MASKS[name], n).sum()


@pytest.mark.parametrize('name', MASKS)
def test_a_mask_that_says_it_is_causal_shows_no_later_token(name):
  assert MASKS[name].causal == (not np.triu(allowed(MASKS[name], 11), 1).any() and not MASKS[name].reads_prefix)


def test_pair_counts_follow_the_formulas():
  n, m, W = 20, 6, 5
  assert Mask().pairs(n) == n * n
  assert Causal().pairs(n) == n * (n + 1) // 2
  assert Prefix(m).pairs(n) == n * m + (n - m) * (n - m + 1) // 2
  assert Window(W).pairs(n) == W * n - W * (W - 1) // 2
  assert Causal().pairs(131_072) == 131_072 * 131_073 // 2


def test_a_mask_with_gaps_is_counted_by_its_predicate():
  class EveryOther(Mask):
    def __call__(self, q, k):
      return (k.pos <= q.pos) & ((q.pos - k.pos) % 2 == 0)

    def reach(self, i_T, n):
      return None

  for n in (7, 1500):
    assert EveryOther().pairs(n) == sum(i // 2 + 1 for i in range(n))
    assert (EveryOther() & Window(3)).pairs(n) == 2 * n - 2


def test_a_prefix_of_nothing_or_of_one_is_causal_and_of_everything_is_full():
  n = 9
  for m in (0, 1):
    np.testing.assert_array_equal(allowed(Prefix(m), n), allowed(Causal(), n))
  np.testing.assert_array_equal(allowed(Prefix(n), n), allowed(Mask(), n))


def test_a_prefix_read_from_the_input_is_the_prefix_of_that_length():
  n, m = 9, 4
  prefix = jnp.arange(n)[None] < m
  np.testing.assert_array_equal(allowed(Prefix(), n, prefix), allowed(Prefix(m), n))
  np.testing.assert_array_equal(allowed(Prefix(), n), allowed(Causal(), n))


def test_a_window_no_shorter_than_the_row_is_causal():
  np.testing.assert_array_equal(allowed(Window(9), 9), allowed(Causal(), 9))
  assert not np.array_equal(allowed(Window(8), 9), allowed(Causal(), 9))


def test_documents_do_not_see_each_other_nor_padding():
  segment = jnp.asarray([[0, 1, 1, 2, 2, 2]])
  site = Site(positions(segment), segment)
  seen = np.asarray(Segments()(site.rows(), site.columns()))[0]
  assert seen.sum() == 2 * 2 + 3 * 3
  assert not seen[:, 0].any()
  np.testing.assert_array_equal(site.pos, [[0, 0, 1, 0, 1, 2]])


def test_masks_are_read_from_text_joined():
  assert Mask.from_text('causal&window') == Both(Causal(), Window())
  assert Mask.from_text('prefix') == Prefix()
  with pytest.raises(errors.ConfigError, match=r"unknown mask 'casual'\. Did you mean 'causal'"):
    Mask.from_text('casual')


@pytest.mark.parametrize(
  ('mask', 'message'),
  [(Window(0), 'size=0 lets a token see nobody'), (Prefix(-1), 'length=-1 is negative')],
)
def test_a_mask_that_cannot_be_is_refused(mask, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(mask)
