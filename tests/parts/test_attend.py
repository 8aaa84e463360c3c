"""Every attention kernel matches dense attention, with gradients, at ragged lengths."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.attending import B, N, info, random_qkv, run_kernel
from tests.parts.jaxprs import variables
from tfm.core import config, errors
from tfm.parts.attend import TABLE
from tfm.parts.attend.base import Scores
from tfm.parts.attend.blockwise import Blockwise
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.pallas.flash import Pallas
from tfm.parts.attend.pallas.visits import tile_kinds
from tfm.parts.attend.staircase import Staircase
from tfm.parts.attend.views import order, reorder, useful_views
from tfm.parts.mask import Causal, Fixed, Permutation, Segments, Strided, Window
from tfm.parts.relative import ALiBi
from tfm.parts.tokeninfo import TokenInfo

SMALL = {
  'blockwise': Blockwise(8, 16),
  'pallas': Pallas(8, 16, interpret=True),
  'staircase': Staircase(3),
}
# Vendor kernels do not support most of these cases: see test_vendor_kernels.py. Kernels of split
# sequences are in test_sequence_kernels.py.
KERNELS = {
  n: SMALL.get(n, row())
  for n, row in TABLE.items()
  if n not in ('auto', 'cudnn', 'dense', 'ring', 'splash', 'ulysses')
}


CASES = {
  'full': {},
  'causal': {'mask': Causal()},
  'window': {'mask': Causal() & Window(5)},
  'cap': {'cap': 2.0},
  'sink': {'sink': True, 'mask': Causal()},
  'alibi': {'alibi': True, 'mask': Causal()},
  't5': {'t5': True},
  'content': {'content': True, 'mask': Causal()},
  'dropout': {'drop': 0.3, 'mask': Causal()},
  'most': {'mask': Causal(), 'cap': 5.0, 'sink': True, 'alibi': True, 't5': True, 'drop': 0.2},
  'all': {
    'mask': Causal(),
    'cap': 5.0,
    'sink': True,
    'alibi': True,
    't5': True,
    'content': True,
    'drop': 0.2,
  },
}


@functools.cache
def dense_results(name, *args, **options):
  """Return the results of dense attention, compiled once per case."""
  return run_kernel(DenseAttention(), CASES[name], *args, **options)


@pytest.mark.parametrize(('name', 'kernel'), [*itertools.product(CASES, KERNELS)])
@pytest.mark.large(
  when=lambda name, kernel: (
    (kernel == 'pallas' and name not in ('all', 'most')) or name in ('cap', 'sink', 'alibi')
  )
)
def test_kernel_matches_dense_attention(name, kernel):
  actual, expected = run_kernel(KERNELS[kernel], CASES[name]), dense_results(name)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5), actual, expected
  )


@pytest.mark.parametrize(('T', 'S'), [(1, 40), (40, 7), (17, 33)])
@pytest.mark.parametrize('kernel', KERNELS)
@pytest.mark.large(when=lambda kernel, T: kernel == 'pallas' and T != 17)
def test_query_key_counts_and_value_size_may_differ(kernel, T, S):
  actual = run_kernel(KERNELS[kernel], CASES['full'], T, S, packed=False, wide=5)
  expected = dense_results('full', T, S, packed=False, wide=5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5), actual, expected
  )


SPARSE = {
  'both': Window(9) & Strided(4) & Fixed(5, 2),
  'fixed': Fixed(5, 2),
  'ahead': Window(2, ahead=True, step=2),
}


@pytest.mark.parametrize('name', SPARSE)
@pytest.mark.large(when=lambda name: name == 'both')
def test_mask_views_match_dense_attention(name):
  mask, T = SPARSE[name], 37
  assert [v.mask for v in useful_views(mask, T / 4)] == [v.mask for v in mask.views()]
  case = CASES['all'] | {'mask': mask}
  actual, expected = (
    run_kernel(Blockwise(4, 8), case, T, T),
    run_kernel(DenseAttention(), case, T, T),
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5), actual, expected
  )


def test_mask_views_support_given_positions_and_other_keys():
  hand = lambda n: jnp.stack([jnp.arange(n)[::-1] * 2, jnp.arange(n) % 7])
  by_hand = lambda n, packed: info(n, packed).replace(positions=hand(n))
  case = {'mask': Strided(4), 'drop': 0.2, 'sink': True}
  actual, expected = (
    run_kernel(kernel, case, 37, 21, info=by_hand) for kernel in (Blockwise(4, 8), DenseAttention())
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5), actual, expected
  )


@pytest.mark.parametrize(
  ('mask', 'tiles', 'in_sequence'),
  [
    # 32 x 32 tiles. The local band is two tiles wide; a column of the stride is one tile.
    (Strided(32), 63 + 32, 528),
    # All later tiles attend to the 4 tiles of summaries; 2 blocks attend to each of the other 28.
    (Fixed(32, 4), 32 + 24 + 16 + 8 + 2 * 28, 528),
    (Window(32, step=4), 4 * (8 + 7), 32 * 5 - 10),
    (Permutation(), 528, 1024),
    (Causal(), 528, 528),
  ],
)
def test_visited_tiles_follow_the_number_of_pairs(mask, tiles, in_sequence):
  n, size = 1024, 32
  at = TokenInfo(jnp.arange(n)[None], jnp.ones((1, n), jnp.int32))

  def visited(views):
    infos = ([reorder(at, order(by, at)) for by in (view.queries, view.keys)] for view in views)
    return sum(
      int((tile_kinds(v.mask, *s, size, size, n) > 0).sum())
      for v, s in zip(views, infos, strict=True)
    )

  assert visited(useful_views(mask, 0)) == in_sequence
  assert visited(useful_views(mask, n / size)) == tiles


@pytest.mark.parametrize('kernel', KERNELS)
def test_fully_masked_queries_return_zeros_without_gradient(kernel):
  y, grads = run_kernel(KERNELS[kernel], CASES['causal'])
  assert not np.any(np.asarray(y)[0, -2:])
  assert not np.any(np.asarray(y)[1, :3])
  assert all(np.isfinite(g).all() for g in grads)
  assert not np.any(np.asarray(grads[0])[0, -2:])


@pytest.mark.parametrize('kernel', ['dense', *KERNELS])
def test_large_scores_stay_finite(kernel):
  q, k, v = random_qkv(20, 20)
  scores = Scores(1e4, Causal() & Segments())
  kernel = KERNELS.get(kernel, DenseAttention())

  @jax.jit
  def program(*qkv):
    y, pull = jax.vjp(lambda *x: kernel(*x, info(20), info(20), scores, 'float32'), *qkv)
    return y, pull(y)

  assert all(np.isfinite(a).all() for a in jax.tree.leaves(program(q, k, v)))


@pytest.mark.parametrize('mask', [Causal(), Strided(16)])
def test_blockwise_makes_no_array_of_queries_by_keys(mask):
  T = 256
  q, k, v = random_qkv(T, T)
  scores = Scores(1.0, mask & Segments(), (lambda a, b: ALiBi().bias(N, a, b),))
  run = lambda *x: Blockwise(16, 32)(*x, info(T), info(T), scores, 'float32').sum()
  sizes = [
    int(np.prod(v.aval.shape))
    for v in variables(jax.make_jaxpr(jax.grad(run, (0, 1, 2)))(q, k, v).jaxpr)
  ]
  assert max(sizes) < B * N * T * T // 4


def test_masked_out_tiles_are_not_computed():
  T = 64
  q, k, v = random_qkv(T, T)
  with_nan = v.at[:, 16:32].set(jnp.nan)
  scores = Scores(1.0, Causal() & Window(8) & Segments())
  y = Blockwise(16, 16)(q, k, with_nan, info(T, False), info(T, False), scores, 'float32')
  assert np.isfinite(y[:, :16]).all()
  assert np.isfinite(y[:, 48:]).all()


def test_dropout_has_its_rate_and_preserves_the_mean():
  factor = np.asarray(Dropout.of(jax.random.key(0), 2, 3, 0.25)(jnp.arange(200), jnp.arange(300)))
  assert set(np.unique(factor)) == {np.float32(0), np.float32(1 / 0.75)}
  deviation = (0.25 * 0.75 / factor.size) ** 0.5
  assert abs((factor == 0).mean() - 0.25) < 4 * deviation
  for axis in (0, 1, 2, 3):
    off = np.delete(factor, 0, axis) == 0, np.delete(factor, -1, axis) == 0
    assert abs((off[0] & off[1]).mean() - 0.25**2) < 4 * (0.0625 / off[0].size) ** 0.5, axis


def test_dropout_depends_on_the_index_of_the_first_query():
  drop = Dropout.of(jax.random.key(0), 1, 2, 0.5)
  later = dataclasses.replace(drop, first=10)(jnp.arange(5), jnp.arange(7))
  np.testing.assert_array_equal(later, drop(jnp.arange(15), jnp.arange(7))[:, :, 10:])


def test_empty_tile_sizes_are_errors():
  with pytest.raises(
    errors.ConfigError, match=r'queries=0, keys=256 must be positive. Expected at least 1'
  ):
    config.validate(Blockwise(queries=0))
