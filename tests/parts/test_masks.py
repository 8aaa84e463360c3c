"""Masks allow exactly the pairs that their formulas count."""

import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.parts.mask import (
  TABLE,
  BigBird,
  Blocks,
  Both,
  Causal,
  Fixed,
  Lambda,
  Mask,
  Permutation,
  Prefix,
  Segments,
  Strided,
  Window,
)
from tfm.parts.mask.base import Band, scrambled
from tfm.parts.tokeninfo import TokenInfo, positions

MASKS = {
  **{name: row() for name, row in TABLE.items()},
  'window-4': Window(4),
  'window-4-ahead': Window(4, ahead=True),
  'window-3-step-2': Window(3, step=2),
  'window-2-ahead-step-3': Window(2, ahead=True, step=3),
  'prefix-3': Prefix(3),
  **{f'strided-4-{part}': Strided(4, part) for part in ('union', 'local', 'stride', 'beyond')},
  **{f'fixed-4-2-{part}': Fixed(4, 2, part) for part in ('union', 'local', 'summary')},
  'lambda-2-3': Lambda(2, 3),
  'bigbird-1': BigBird(1, 2, 9),
  'bigbird-2': BigBird(2, 1, 12),
  'permutation-1': Permutation(1),
  'permutation-others': Permutation(itself=False),
  'blocks-4': Blocks(('100', '110', '011'), 4),
  'blocks&causal': Blocks(('101', '110', '011'), 4) & Causal(),
  'causal&window&segments': Causal() & Window(5) & Segments(),
  'prefix&window': Prefix(4) & Window(3),
  'strided&strided': Strided(4) & Strided(2),
}


def allowed(mask, n, prefix=None):
  """Return the mask as bool `[n, n]`; rows are queries."""
  pos = jnp.arange(n)[None]
  info = TokenInfo(pos, jnp.ones_like(pos)).with_extras(prefix=prefix)
  return np.asarray(mask(info.rows(), info.columns()))[0]


@pytest.mark.parametrize('n', [1, 4, 11])
@pytest.mark.parametrize('name', MASKS)
def test_pair_count_matches_the_predicate(name, n):
  assert MASKS[name].pairs(n) == allowed(MASKS[name], n).sum()


@pytest.mark.parametrize('name', MASKS)
def test_causal_masks_hide_later_tokens(name):
  assert MASKS[name].causal == (
    not np.triu(allowed(MASKS[name], 11), 1).any() and 'prefix' not in MASKS[name].reads
  )


@pytest.mark.parametrize('name', MASKS)
def test_views_partition_the_mask(name):
  parts = [allowed(view.mask, 11).astype(int) for view in MASKS[name].views()]
  np.testing.assert_array_equal(sum(parts), allowed(MASKS[name], 11))


def in_band(band, q, k):
  """Return the pairs that the band allows, bool `[B, T, S]`."""
  distance = q.positions[:, :, None] - k.positions[:, None]
  ok = (band.back is None or distance <= band.back) & (
    band.ahead is None or -distance <= band.ahead
  )
  same = (q.segment_ids[:, :, None] == k.segment_ids[:, None]) & (k.segment_ids > 0)[:, None]
  return ok & same if band.same_segment else ok | np.zeros(distance.shape, bool)


@pytest.mark.parametrize('name', [name for name, mask in MASKS.items() if mask.band is not None])
def test_band_and_mask_allow_the_same_pairs(name):
  rng = np.random.default_rng(0)
  # Positions slightly beyond the widest band of the table, which is 128.
  q, k = (TokenInfo(*(rng.integers(0, n, (50, T)) for n in (140, 3))) for T in (19, 23))
  expected = np.broadcast_to(np.asarray(MASKS[name](q.rows(), k.columns())), (50, 19, 23))
  np.testing.assert_array_equal(in_band(MASKS[name].band, q, k), expected)


def test_masks_declare_their_bands():
  assert Mask().band == Band()
  assert Causal().band == Band(None, 0)
  assert Window(4).band == Strided(4, 'local').band == Band(3, 0)
  assert Window(4, ahead=True).band == Band(3, 3)
  assert Segments().band == Band(same_segment=True)
  assert (Causal() & Window(5) & Segments()).band == Band(4, 0, True)
  assert (Window(4) & Window(2, ahead=True)).band == Band(1, 0)
  for mask in (
    Window(3, step=2),
    Prefix(3),
    Strided(4) & Causal(),
    Causal() & Prefix(3),
    Fixed(4, 2),
    BigBird(),
  ):
    assert mask.band is None, mask


def test_joined_masks_keep_the_order_of_either():
  (alone,) = Window(3, step=2).views()
  info = TokenInfo(jnp.arange(7)[None], jnp.ones((1, 7), jnp.int32))
  for joined in (Causal() & Window(3, step=2), Window(3, step=2) & Segments()):
    (view,) = joined.views()
    for order, expected in ((view.queries, alone.queries), (view.keys, alone.keys)):
      np.testing.assert_array_equal(order(info), expected(info))
      np.testing.assert_array_equal(order(info), [[0, 1, 0, 1, 0, 1, 0]])


def test_pair_counts_follow_the_formulas():
  n, m, W = 20, 6, 5
  assert Mask().pairs(n) == n * n
  assert Causal().pairs(n) == n * (n + 1) // 2
  assert Prefix(m).pairs(n) == n * m + (n - m) * (n - m + 1) // 2
  assert Window(W).pairs(n) == W * n - W * (W - 1) // 2
  assert Causal().pairs(131_072) == 131_072 * 131_073 // 2


@pytest.mark.parametrize(
  ('n', 'masks'),
  [
    (16, {Strided(4, 'local'): 58, Strided(4, 'stride'): 40, Strided(4): 82}),
    (16, {Fixed(4, 1, 'local'): 40, Fixed(4, 1, 'summary'): 28, Fixed(4, 1): 64}),
    (1024, {Strided(32, 'local'): 32_272, Strided(32, 'stride'): 16_896, Strided(32): 48_144}),
    (
      1024,
      {Fixed(32, 8, 'local'): 16_896, Fixed(32, 8, 'summary'): 128_128, Fixed(32, 8): 143_872},
    ),
    (64, {Lambda(4, 16): 1090}),
    (4096, {BigBird(): 622 * 64**2}),
    (1024, {BigBird(length=1024): 142 * 64**2}),
  ],
)
def test_sparse_masks_have_the_published_number_of_pairs(n, masks):
  for mask, pairs in masks.items():
    assert mask.pairs(n) == pairs, mask
    if n <= 1024:
      assert allowed(mask, n).sum() == pairs, mask


def test_two_sparse_layers_connect_all_tokens():
  causal = allowed(Causal(), 16)
  two = lambda a, b: allowed(a, 16).astype(int) @ allowed(b, 16).astype(int) > 0
  np.testing.assert_array_equal(two(Strided(4, 'local'), Strided(4, 'stride')), causal)
  joined = two(Fixed(4, 1, 'local'), Fixed(4, 1, 'summary')) | two(
    Fixed(4, 1, 'summary'), Fixed(4, 1, 'local')
  )
  block = np.arange(16) // 4
  assert joined[causal & (block[:, None] > block[None])].all()


@pytest.mark.parametrize('part', ['union', 'local'])
def test_degenerate_sparse_masks_equal_plain_ones(part):
  n = 11
  np.testing.assert_array_equal(allowed(Strided(1), n), allowed(Causal(), n))
  np.testing.assert_array_equal(allowed(Strided(4, 'local'), n), allowed(Window(4), n))
  np.testing.assert_array_equal(allowed(Strided(n, part), n), allowed(Causal(), n))
  np.testing.assert_array_equal(allowed(Fixed(n, 1, part), n), allowed(Causal(), n))
  np.testing.assert_array_equal(allowed(Lambda(0, 4), n), allowed(Window(4), n))
  np.testing.assert_array_equal(allowed(Lambda(4, 7), n), allowed(Causal(), n))
  np.testing.assert_array_equal(allowed(Window(3, step=1), n), allowed(Window(3), n))
  np.testing.assert_array_equal(allowed(Blocks(('1',), 4), n), allowed(Mask(), n))


def test_lambda_mask_is_sinks_and_window():
  np.testing.assert_array_equal(
    allowed(Lambda(2, 3), 20),
    (allowed(Window(3), 20) | (np.arange(20)[None] < 2)) & allowed(Causal(), 20),
  )


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(('n', 'r'), [(8, 3), (16, 3), (40, 5)])
def test_bigbird_draws_distinct_blocks_outside_its_pattern(n, r, seed):
  full, rest = allowed(BigBird(1, r, n, seed), n), allowed(BigBird(1, 0, n), n)
  assert full[[0, -1]].all()
  assert full[:, [0, -1]].all()
  assert not (rest & ~full).any()
  np.testing.assert_array_equal((full & ~rest).sum(1)[1:-1], r)
  assert full.sum() == 2 * n + 2 * (4 + r) + (n - 4) * (5 + r)


def test_bigbird_draws_blocks_uniformly():
  n, r = 300, 5
  counts = (allowed(BigBird(1, r, n), n) & ~allowed(BigBird(1, 0, n), n)).sum(0)[1:-1]
  assert counts.sum() == r * (n - 2)
  # Columns are sums of nearly independent draws, so nearly Poisson with mean r.
  assert counts.max() < r + 5 * np.sqrt(r)
  assert abs(counts.var() / r - 1) < 0.35
  assert abs(counts[: n // 2].mean() - r) < 4 * np.sqrt(r / (n // 2))


def test_bigbird_last_block_depends_on_document_length():
  mask = BigBird(2, 1, 16)
  np.testing.assert_array_equal(allowed(mask, 10), allowed(mask, 16)[:10, :10])
  longer = allowed(mask, 24)
  np.testing.assert_array_equal(longer[:16, :16], allowed(mask, 16))
  assert longer[14:].all()
  assert longer[:, 14:].all()


@pytest.mark.parametrize('n', [7, 33])
def test_permutation_is_a_causal_mask_in_another_order(n):
  seen = allowed(Permutation(3), n)
  rank = seen.sum(1) - 1
  assert sorted(rank) == list(range(n))
  assert list(rank) != list(range(n))
  np.testing.assert_array_equal(seen, rank[None] <= rank[:, None])
  np.testing.assert_array_equal(
    allowed(Permutation(3, itself=False), n), rank[None] < rank[:, None]
  )
  assert (seen != allowed(Permutation(4), n)).any()


def test_permutation_orders_are_uniform_over_seeds():
  n, seeds = 5, 80
  ranks = np.stack(
    [np.argsort(np.argsort(scrambled(jnp.arange(n), seed))) for seed in range(seeds)]
  )
  counts = np.stack([np.bincount(ranks[:, i], minlength=n) for i in range(n)])
  assert (np.abs(counts - seeds / n) < 4 * np.sqrt(seeds / n)).all()


def test_scrambled_numbers_are_distinct():
  for seed in (0, 1, -1):
    assert len(np.unique(scrambled(jnp.arange(100_000), seed))) == 100_000


def test_blocks_mask_with_more_columns_than_word_bits():
  table = np.random.default_rng(0).random((70, 70)) < 0.3
  mask = Blocks(tuple(''.join('01'[int(c)] for c in row) for row in table), 2)
  np.testing.assert_array_equal(allowed(mask, 140), table.repeat(2, 0).repeat(2, 1))
  assert mask.pairs(140) == 4 * table.sum()
  assert config.from_json(Mask, config.to_json(mask)) == mask


def test_tokens_after_the_last_block_belong_to_it():
  seen = allowed(Blocks(('10', '11'), 2), 7)
  np.testing.assert_array_equal(seen, (np.arange(7)[:, None] >= 2) | (np.arange(7)[None] < 2))


def test_masks_with_gaps_count_pairs_by_the_predicate():
  class EveryOther(Mask):
    def __call__(self, q, k):
      return (k.positions <= q.positions) & ((q.positions - k.positions) % 2 == 0)

    def reach(self, i_T, n):
      return None

  for n in (7, 1500):
    assert EveryOther().pairs(n) == sum(i // 2 + 1 for i in range(n))
    assert (EveryOther() & Window(3)).pairs(n) == 2 * n - 2


def test_prefix_is_causal_or_full_at_its_limits():
  n = 9
  for m in (0, 1):
    np.testing.assert_array_equal(allowed(Prefix(m), n), allowed(Causal(), n))
  np.testing.assert_array_equal(allowed(Prefix(n), n), allowed(Mask(), n))


def test_prefix_input_equals_prefix_of_that_length():
  n, m = 9, 4
  prefix = jnp.arange(n)[None] < m
  np.testing.assert_array_equal(allowed(Prefix(), n, prefix), allowed(Prefix(m), n))
  np.testing.assert_array_equal(allowed(Prefix(), n), allowed(Causal(), n))


def test_window_as_long_as_the_sequence_is_causal():
  np.testing.assert_array_equal(allowed(Window(9), 9), allowed(Causal(), 9))
  assert not np.array_equal(allowed(Window(8), 9), allowed(Causal(), 9))


def test_documents_do_not_attend_to_others_or_padding():
  segment = jnp.asarray([[0, 1, 1, 2, 2, 2]])
  info = TokenInfo(positions(segment), segment)
  seen = np.asarray(Segments()(info.rows(), info.columns()))[0]
  assert seen.sum() == 2 * 2 + 3 * 3
  assert not seen[:, 0].any()
  np.testing.assert_array_equal(info.positions, [[0, 0, 1, 0, 1, 2]])


@pytest.mark.parametrize(
  ('text', 'mask'),
  [
    ('prefix', Prefix()),
    ('causal&window', Causal() & Window()),
    ('causal & window(size=64)', Causal() & Window(64)),
    ('window(size=64)&causal', Window(64) & Causal()),
    ('window(size=64)&prefix(length=3)&segments', Window(64) & Prefix(3) & Segments()),
    ('both(left=causal&strided(stride=4), right=window)', Both(Causal() & Strided(4), Window())),
    ('lambda(sinks=2)', Lambda(2)),
    ('blocks(rows=(100, 110, 011), block=4)', Blocks(('100', '110', '011'), 4)),
  ],
)
def test_masks_are_parsed_from_text(text, mask):
  assert config.parse(Mask, text) == mask
  assert config.parse(Mask, config.text_of(mask)) == mask


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('casual', "at: unknown mask 'casual'. Did you mean 'causal'?"),
    ('causal&windw(size=3)', "at: unknown mask 'windw'. Did you mean 'window'?"),
    ('causal&window(sise=3)', "at=window: unknown field 'sise'. Did you mean 'size'"),
    ('causal&', "at: unknown mask ''."),
  ],
)
def test_misspelt_joined_masks_are_errors(text, message):
  with pytest.raises(errors.ConfigError) as e:
    config.parse(Mask, text, 'at')
  assert message in str(e.value)


@pytest.mark.parametrize(
  ('mask', 'message'),
  [
    (Window(0), 'size=0 leaves no key in the window'),
    (Window(step=0), 'step=0 is not a distance'),
    (Prefix(-1), 'length=-1 is negative'),
    (Strided(0), 'stride=0 is not a distance'),
    (Fixed(0), 'block=0 is not a block size'),
    (Fixed(4, 5), r'summary=5 does not fit block=4\. Expected 1 to 4'),
    (Lambda(-1), 'sinks=-1 is negative'),
    (Lambda(size=0), 'size=0 leaves no key in the window'),
    (BigBird(0), 'block=0, random=3 is out of range'),
    (
      BigBird(64, 3, 400),
      r'length=400 has 7 blocks of 64 tokens, too few for random=3\. Expected at least 8 blocks',
    ),
    (BigBird(1, 3, 70_000), 'length=70000 has 70000 blocks of 1 tokens. Expected fewer'),
    (Blocks(block=0), 'block=0 is not a block size'),
    (Blocks(('10', '1')), r"rows=\('10', '1'\) is not a square of 0 and 1"),
    (Blocks(('12', '11')), 'is not a square of 0 and 1'),
    (Blocks(()), 'is not a square of 0 and 1'),
  ],
)
def test_invalid_mask_fields_are_errors(mask, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(mask)
