"""Properties of single cache layouts: bytes, bounds and block tables."""

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
from tfm.parts.cache.paged import set_tables
from tfm.parts.context import Run
from tfm.parts.mask import Causal, Prefix, Segments, Strided, Window
from tfm.parts.mixer import Attention
from tfm.parts.tokeninfo import TokenInfo

IDS = np.random.default_rng(0).integers(1, 61, (2, 12)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(spec, run, params, cache, ids):
  out = transformer.apply(spec, params, run=run, cache=cache, input_ids=ids)
  return out['logits'], out['cache']


def array_bytes(cache):
  """Return the bytes of the cached arrays, without token infos and tables."""
  leaves = jax.tree_util.tree_leaves_with_path(cache['layers'])
  return sum(a.nbytes for path, a in leaves if 'arrays' in jax.tree_util.keystr(path))


@pytest.mark.parametrize(
  'kind', [row() for row in TABLE.values()] + [RingCache(3), PagedCache(5), Int8Cache(RingCache(3))]
)
@pytest.mark.parametrize('name', ['rope_gqa', 'window', 'mla'])
def test_cache_bytes_match_the_arrays(kind, name):
  spec = MODELS[name]
  cache = jax.eval_shape(lambda: init_cache(spec, 3, 40, jnp.bfloat16, kind=kind))
  sizes = jax.tree_util.tree_leaves_with_path(cache['layers'])
  kept = [a for path, a in sizes if 'arrays' in jax.tree_util.keystr(path)]
  assert sum(a.size * a.dtype.itemsize for a in kept) == 3 * count.cache_bytes(
    spec, 40, jnp.bfloat16, kind
  )


def test_ring_cache_size_does_not_grow_with_length():
  spec = decoder(Attention(4, 2, 8, mask=Window(16)))
  ring = lambda length: count.cache_bytes(spec, length, jnp.bfloat16, RingCache(8))
  assert ring(64) == ring(1 << 20) == 2 * (15 + 8) * 2 * 2 * 8 * 2
  assert ring(20) == count.cache_bytes(spec, 20, jnp.bfloat16)
  assert count.cache_bytes_per_token(spec, jnp.bfloat16, RingCache()) == 0
  plain = decoder(Attention(4, 2, 8))
  assert count.cache_bytes_per_token(
    plain, jnp.bfloat16, RingCache()
  ) == count.cache_bytes_per_token(plain)


def test_int8_cache_takes_one_byte_per_entry():
  assert (
    count.cache_bytes_per_token(zoo.get('llama2-70b'), kind=Int8Cache())
    == 2 * 80 * 8 * (128 + 4)
    == 168_960
  )
  assert count.cache_bytes_per_token(zoo.get('gpt2'), kind=Int8Cache()) == 2 * 12 * 12 * (64 + 4)


def test_mask_lookback():
  assert Window(5).lookback == 4
  assert Window(5, step=3).lookback == 12
  assert (Causal() & Window(5) & Segments() & Window(3)).lookback == 2
  for mask in (Causal(), Prefix(), Segments(), Strided(4), Causal() & Segments()):
    assert mask.lookback is None


@pytest.mark.parametrize('margin', [1, 4, 30])
def test_ring_cache_matches_full_pass_for_any_chunks(margin):
  spec, run = decoder(Attention(4, 2, 8, mask=Window(3))), Run(cache=RingCache(margin))
  params = weights(spec)
  whole = jax.jit(lambda p: transformer.apply(spec, p, input_ids=IDS)['logits'])(params)
  for cuts in ([7], [1, 3, 10], [4, 8]):
    cache, chunks = init_cache(spec, 2, 64, kind=run.cache), []
    for chunk in np.split(IDS, cuts, axis=1):
      logits, cache = apply(spec, run, params, cache, chunk)
      chunks.append(logits)
    np.testing.assert_allclose(np.concatenate(chunks, 1), whole, rtol=1e-4, atol=1e-4)
  assert array_bytes(cache) == 2 * count.cache_bytes(spec, 64, jnp.float32, run.cache)


def test_int8_error_is_at_most_half_a_step():
  x = np.random.default_rng(1).standard_normal((3, 5, 2, 16)).astype(np.float32)
  x[0, 0] = 0
  x[1, 1] *= 1e6
  q, scale = jax.jit(quantize)(x)
  assert q.dtype == jnp.int8
  assert np.all(
    np.abs(np.asarray(q, np.float64) * np.asarray(scale) - x) <= np.asarray(scale) * 0.500001
  )
  np.testing.assert_allclose(scale[..., 0], np.abs(x).max(-1) / 127, rtol=1e-6)


def test_int8_cache_changes_logits_slightly():
  spec = MODELS['rope_gqa']
  logits = lambda kind: apply(
    spec, Run(cache=kind), weights(spec), init_cache(spec, 2, 16, kind=kind), IDS
  )[0]
  exact, rough = logits(DenseCache()), logits(Int8Cache())
  off = np.sqrt(np.mean(np.square(exact - rough)) / np.mean(np.square(exact)))
  assert 1e-4 < off < 0.1


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('name', ['rope_gqa', 'window'])
def test_paged_cache_equals_dense_cache_for_any_table(name, seed):
  spec, kind = MODELS[name], PagedCache(4, 11)
  table = np.random.default_rng(seed).permutation(11)[:8].reshape(2, 4)
  run = Run(cache=kind)
  paged = set_tables(
    init_cache(spec, 2, 16, kind=kind), jnp.asarray(table), jnp.zeros(0, int), jnp.zeros(0, int)
  )
  dense = init_cache(spec, 2, 16)
  for chunk in np.split(IDS, [7, 8, 10], axis=1):
    paged_logits, paged = apply(spec, run, weights(spec), paged, chunk)
    dense_logits, dense = apply(spec, Run(), weights(spec), dense, chunk)
    np.testing.assert_array_equal(paged_logits, dense_logits)


def test_forked_sequences_share_blocks_and_diverge():
  spec, kind = MODELS['rope_gqa'], PagedCache(4, 6)
  run, params, blocks = Run(cache=kind), weights(spec), BlockAllocator(6, 4)
  row = blocks.new()
  cache = init_cache(spec, 1, 16, kind=kind)
  lay = jax.jit(lambda cache, table, copies: set_tables(cache, table, copies[:, 0], copies[:, 1]))
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
    paged_logits, forked = apply(spec, run, params, forked, IDS[:, t : t + 1])
    dense_logits, dense = apply(spec, Run(), params, dense, IDS[:, t : t + 1])
    np.testing.assert_array_equal(paged_logits, dense_logits)
  assert blocks.n_free == 6 - 5  # each sequence has 3 blocks, and the first is shared


@pytest.mark.parametrize('prompt', [1, 5, 9])
def test_reordered_sequences_share_full_blocks(prompt):
  B, block, pool, rng = 4, 3, 24, np.random.default_rng(prompt)
  kind = PagedCache(block, pool)
  shapes = {
    'k': jax.ShapeDtypeStruct((2, 5), jnp.float32),
    'c': jax.ShapeDtypeStruct((7,), jnp.float32),
  }
  # All sequences share the full blocks of the prompt; the other blocks belong to one sequence each.
  # The last column of the table is unused.
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
  store = set_tables(
    kind.init(shapes, 1, 6 * block, None, frozenset()), table[:1], *np.zeros((2, 0), int)
  )
  store = set_tables(write(store, rows, 0)[2], jnp.asarray(table), *copies)
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


def test_cache_is_parsed_from_text():
  assert config.parse(Cache, 'int8(of=ring(margin=4))', 'cache') == Int8Cache(RingCache(4))
  with pytest.raises(errors.ConfigError, match=r"unknown cache 'rign'\. Did you mean 'ring'"):
    config.parse(Cache, 'rign', 'cache')


@pytest.mark.parametrize(
  ('kind', 'message'),
  [
    (RingCache(0), r'margin=0 leaves no slot for new tokens. Expected at least 1'),
    (PagedCache(0), r'block=0, blocks=None must be positive. Expected at least 1, or blocks=none'),
    (PagedCache(4, 0), r'block=4, blocks=0 must be positive'),
    (
      Int8Cache(Int8Cache()),
      r'is itself a quantized cache. Expected a cache that stores arrays exactly',
    ),
  ],
)
def test_sizes_out_of_range_are_errors(kind, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(Run(cache=kind))
