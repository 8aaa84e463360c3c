"""What is particular to a way of keeping a cache: bytes, bounds, tables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, decoder, weights
from tfm import zoo
from tfm.core import config, errors
from tfm.generate.block_allocator import BlockAllocator
from tfm.model import count, transformer
from tfm.model.cache import init_cache
from tfm.parts.cache import TABLE, Cache, DenseCache, Int8Cache, PagedCache, RingCache
from tfm.parts.cache.int8 import quantize
from tfm.parts.cache.paged import laid
from tfm.parts.context import Run
from tfm.parts.mask import Causal, Prefix, Segments, Strided, Window
from tfm.parts.mixer import Attention
from tfm.parts.tokeninfo import TokenInfo

IDS = np.random.default_rng(0).integers(1, 61, (2, 12)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(spec, run, params, cache, ids):
  out = transformer.apply(spec, params, run=run, cache=cache, input_ids=ids)
  return out['logits'], out['cache']


def held(cache):
  """Bytes of the cached arrays, without their infos and what else finds them."""
  leaves = jax.tree_util.tree_leaves_with_path(cache['layers'])
  return sum(a.nbytes for path, a in leaves if 'arrays' in jax.tree_util.keystr(path))


@pytest.mark.parametrize(
  'kind', [row() for row in TABLE.values()] + [RingCache(3), PagedCache(5), Int8Cache(RingCache(3))]
)
@pytest.mark.parametrize('name', ['rope_gqa', 'window', 'mla'])
def test_the_bytes_that_are_counted_are_those_that_are_held(kind, name):
  spec = MODELS[name]
  cache = jax.eval_shape(lambda: init_cache(spec, 3, 40, jnp.bfloat16, kind=kind))
  sizes = jax.tree_util.tree_leaves_with_path(cache['layers'])
  kept = [a for path, a in sizes if 'arrays' in jax.tree_util.keystr(path)]
  assert sum(a.size * a.dtype.itemsize for a in kept) == 3 * count.cache_bytes(
    spec, 40, jnp.bfloat16, kind
  )


def test_a_ring_is_as_long_as_its_window_whatever_the_length():
  spec = decoder(Attention(4, 2, 8, mask=Window(16)))
  ring = lambda length: count.cache_bytes(spec, length, jnp.bfloat16, RingCache(8))
  assert ring(64) == ring(1 << 20) == 2 * (15 + 8) * 2 * 2 * 8 * 2
  assert ring(20) == count.cache_bytes(spec, 20, jnp.bfloat16)
  assert count.cache_bytes_per_token(spec, jnp.bfloat16, RingCache()) == 0
  plain = decoder(Attention(4, 2, 8))
  assert count.cache_bytes_per_token(
    plain, jnp.bfloat16, RingCache()
  ) == count.cache_bytes_per_token(plain)


def test_int8_takes_a_byte_a_number_and_four_a_head():
  assert (
    count.cache_bytes_per_token(zoo.get('llama2-70b'), kind=Int8Cache())
    == 2 * 80 * 8 * (128 + 4)
    == 168_960
  )
  assert count.cache_bytes_per_token(zoo.get('gpt2'), kind=Int8Cache()) == 2 * 12 * 12 * (64 + 4)


def test_masks_say_how_far_back_they_see():
  assert Window(5).lookback == 4
  assert Window(5, step=3).lookback == 12
  assert (Causal() & Window(5) & Segments() & Window(3)).lookback == 2
  for mask in (Causal(), Prefix(), Segments(), Strided(4), Causal() & Segments()):
    assert mask.lookback is None


@pytest.mark.parametrize('margin', [1, 4, 30])
def test_a_prompt_longer_than_the_window_in_chunks_of_any_size_says_what_it_says_at_once(margin):
  spec, run = decoder(Attention(4, 2, 8, mask=Window(3))), Run(cache=RingCache(margin))
  params = weights(spec)
  whole = jax.jit(lambda p: transformer.apply(spec, p, input_ids=IDS)['logits'])(params)
  for cuts in ([7], [1, 3, 10], [4, 8]):
    cache, said = init_cache(spec, 2, 64, kind=run.cache), []
    for chunk in np.split(IDS, cuts, axis=1):
      logits, cache = apply(spec, run, params, cache, chunk)
      said.append(logits)
    np.testing.assert_allclose(np.concatenate(said, 1), whole, rtol=1e-4, atol=1e-4)
  assert held(cache) == 2 * count.cache_bytes(spec, 64, jnp.float32, run.cache)


def test_no_number_of_an_int8_cache_is_off_by_more_than_half_a_step():
  x = np.random.default_rng(1).standard_normal((3, 5, 2, 16)).astype(np.float32)
  x[0, 0] = 0
  x[1, 1] *= 1e6
  q, scale = jax.jit(quantize)(x)
  assert q.dtype == jnp.int8
  assert np.all(
    np.abs(np.asarray(q, np.float64) * np.asarray(scale) - x) <= np.asarray(scale) * 0.500001
  )
  np.testing.assert_allclose(scale[..., 0], np.abs(x).max(-1) / 127, rtol=1e-6)


def test_logits_through_an_int8_cache_are_close_and_not_the_same():
  spec = MODELS['rope_gqa']
  say = lambda kind: apply(
    spec, Run(cache=kind), weights(spec), init_cache(spec, 2, 16, kind=kind), IDS
  )[0]
  exact, rough = say(DenseCache()), say(Int8Cache())
  off = np.sqrt(np.mean(np.square(exact - rough)) / np.mean(np.square(exact)))
  assert 1e-4 < off < 0.1


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('name', ['rope_gqa', 'window'])
def test_a_paged_cache_says_to_the_bit_what_a_dense_one_says_whatever_its_table(name, seed):
  spec, kind = MODELS[name], PagedCache(4, 11)
  table = np.random.default_rng(seed).permutation(11)[:8].reshape(2, 4)
  run = Run(cache=kind)
  paged = laid(
    init_cache(spec, 2, 16, kind=kind), jnp.asarray(table), jnp.zeros(0, int), jnp.zeros(0, int)
  )
  dense = init_cache(spec, 2, 16)
  for chunk in np.split(IDS, [7, 8, 10], axis=1):
    ours, paged = apply(spec, run, weights(spec), paged, chunk)
    theirs, dense = apply(spec, Run(), weights(spec), dense, chunk)
    np.testing.assert_array_equal(ours, theirs)


def test_forks_of_a_row_share_its_blocks_and_go_their_own_ways():
  spec, kind = MODELS['rope_gqa'], PagedCache(4, 6)
  run, params, blocks = Run(cache=kind), weights(spec), BlockAllocator(6, 4)
  row = blocks.new()
  cache = init_cache(spec, 1, 16, kind=kind)
  lay = jax.jit(lambda cache, table, copies: laid(cache, table, copies[:, 0], copies[:, 1]))
  none = np.full((1, 2), 6, np.int32)
  blocks.grow(row, 6)
  _, cache = apply(spec, run, params, lay(cache, blocks.table([row], 4), none), IDS[:1, :6])
  rows = [row, blocks.fork(row)]
  wide = lambda a: jnp.concatenate([a, a])
  forked = cache | {'slot': wide(cache['slot']), 'next': wide(cache['next'])}
  dense = init_cache(spec, 2, 16)
  _, dense = apply(spec, Run(), params, dense, wide(IDS[:1, :6]))
  for t in range(6, 10):
    copies = [copy for row in rows for copy in blocks.grow(row, 1)]
    forked = lay(forked, blocks.table(rows, 4), np.asarray(copies or none, np.int32))
    ours, forked = apply(spec, run, params, forked, IDS[:, t : t + 1])
    theirs, dense = apply(spec, Run(), params, dense, IDS[:, t : t + 1])
    np.testing.assert_array_equal(ours, theirs)
  assert blocks.n_free == 6 - 5  # of 3 blocks a row the first is shared


@pytest.mark.parametrize('prompt', [1, 5, 9])
def test_rows_that_follow_each_other_share_full_blocks_and_copy_none_but_their_last(prompt):
  B, block, pool, rng = 4, 3, 24, np.random.default_rng(prompt)
  kind = PagedCache(block, pool)
  shapes = {
    'k': jax.ShapeDtypeStruct((2, 5), jnp.float32),
    'c': jax.ShapeDtypeStruct((7,), jnp.float32),
  }
  # The prompt's full blocks belong to all, the others to one row each; the last places of the rows
  # are in none.
  table, own = rng.permutation(pool)[: B * 6].reshape(B, 6), prompt // block
  table[:, :own], table[:, 5] = table[0, :own], pool

  @jax.jit
  def write(store, new, n):
    B, T = new['k'].shape[:2]
    info = TokenInfo(jnp.broadcast_to(n + jnp.arange(T), (B, T)), jnp.ones((B, T), int))
    return kind.write(store, new, info, jnp.full(B, n), None)

  follow = jax.jit(lambda store, index_B, n: kind.follow(store, index_B, jnp.full(B, n)))
  made = lambda B, T: {
    name: rng.standard_normal((B, T, *a.shape), np.float32) for name, a in shapes.items()
  }
  rows, copies = made(1, prompt), np.stack([np.repeat(table[0, own], B), table[:, own]])
  store = laid(
    kind.init(shapes, 1, 6 * block, None, frozenset()), table[:1], *np.zeros((2, 0), int)
  )
  store = laid(write(store, rows, 0)[2], jnp.asarray(table), *copies)
  rows = {name: np.repeat(a, B, axis=0) for name, a in rows.items()}
  for n in range(prompt, 15):
    index_B, new, before = rng.integers(0, B, B), made(B, 1), np.asarray(store.arrays['k'])
    store = follow(store, index_B, n)
    assert (before != store.arrays['k']).any(axis=(1, 2, 3)).sum() <= B
    rows = {name: np.concatenate([a[index_B], new[name]], 1) for name, a in rows.items()}
    seen, info, store = write(store, new, n)
    np.testing.assert_array_equal(
      info.segment_ids > 0, np.broadcast_to(np.arange(18) <= n, (B, 18))
    )
    for name, a in rows.items():
      np.testing.assert_array_equal(seen[name][:, : n + 1], a)


def test_a_cache_is_named_in_text_with_its_fields():
  assert config.parse(Cache, 'int8(of=ring(margin=4))', 'cache') == Int8Cache(RingCache(4))
  with pytest.raises(errors.ConfigError, match=r"unknown cache 'rign'\. Did you mean 'ring'"):
    config.parse(Cache, 'rign', 'cache')


@pytest.mark.parametrize(
  ('kind', 'message'),
  [
    (RingCache(0), r'margin=0 leaves no slot for a new token. Expected at least 1'),
    (PagedCache(0), r'block=0, blocks=None is no size. Expected at least 1 of each, or no blocks'),
    (PagedCache(4, 0), r'block=4, blocks=0 is no size'),
    (
      Int8Cache(Int8Cache()),
      r'rounds what is rounded already. Expected a cache that keeps its arrays as they are',
    ),
  ],
)
def test_sizes_that_are_none_are_refused(kind, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(Run(cache=kind))
