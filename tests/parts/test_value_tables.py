"""Position vectors of values match vectors gathered for every pair."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import decoder, weights
from tests.parts.attending import content_terms, info, random_qkv, t5
from tests.parts.jaxprs import variables
from tfm.core import config, errors
from tfm.model import cache as cache_lib
from tfm.model import count, transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.attend import Blockwise, DenseAttention, Staircase
from tfm.parts.attend.base import Scores
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.value_table import ValueTable
from tfm.parts.attend.views import useful_views
from tfm.parts.cache import DenseCache, Int8Cache, PagedCache, RingCache
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mask import Causal, Fixed, Mask, Segments, Strided, Window
from tfm.parts.mixer import MLA, Attention, Hierarchical
from tfm.parts.relative import RoPE, Shaw
from tfm.parts.relative.t5 import bucket
from tfm.parts.relative.toeplitz import distance

B, N, K, H = 2, 4, 2, 8
FAR = 3
BY_DISTANCE = lambda q, k: distance(q.rows(), k.columns(), FAR)
BY_PARITY = lambda q, k: (q.positions[:, :, None] + k.positions[:, None]) % 2


def naive(xp, q, k, v, added, content_UN, bias_UN, sink_N, kept, ok_BTS, rows, buckets, case):
  """Return attention in plain numpy, with a vector gathered for every pair."""
  each = lambda x: xp.repeat(x, N // K, axis=2)
  s = xp.einsum('btnh,bsnh->bnts', q, each(k))
  if 'content' in case:
    s = s + xp.take_along_axis(xp.einsum('btnh,un->bntu', q, content_UN), buckets[:, None], axis=-1)
  s = s * H**-0.5
  if 'cap' in case:
    s = case['cap'] * xp.tanh(s / case['cap'])
  if 't5' in case:
    s = s + xp.moveaxis(bias_UN[buckets], -1, 1)
  e = xp.exp(s) * ok_BTS[:, None]
  total = e.sum(-1, keepdims=True) + (xp.exp(sink_N)[None, :, None, None] if 'sink' in case else 0)
  p = e / xp.where(total > 0, total, 1) * kept
  y = xp.einsum('bnts,bsnh->btnh', p, each(v))
  for table, row in zip(added, rows, strict=True):
    y = y + xp.einsum('bnts,btsh->btnh', p, table[row])
  return y


CASES = {
  'full': {},
  'causal': {'mask': Causal()},
  'sink': {'mask': Causal(), 'sink': True},
  'dropout': {'mask': Causal(), 'drop': 0.3},
  'strided': {'mask': Strided(4), 'drop': 0.2, 'sink': True},
  'two masks of two views': {'mask': Window(9) & Strided(4) & Fixed(5, 2)},
  'all': {
    'mask': Causal() & Window(9),
    'cap': 5.0,
    'sink': True,
    't5': True,
    'content': True,
    'drop': 0.2,
  },
}
KERNELS = {
  'dense': DenseAttention(),
  'blockwise': Blockwise(8, 16),
  'views': Blockwise(4, 8),
  'staircase': Staircase(),
}
OF_VIEWS = ('strided', 'two masks of two views')
# Staircase runs dense attention on chunks, so one case is enough for it.
PAIRS = [
  (c, k)
  for c, k in itertools.product(CASES, KERNELS)
  if k == 'dense' or (k == 'views' and c in OF_VIEWS)
]
PAIRS += [(c, 'blockwise') for c in CASES if c not in OF_VIEWS] + [('all', 'staircase')]
T = 36


def inputs(case, wide=H, T=T, S=T):
  """Return the differentiable arrays, the other arguments of `naive`, and token infos."""
  q, k, v = random_qkv(T, S, wide=wide)
  normal = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)
  arrays = (
    q,
    k,
    v,
    (normal(7, 2 * FAR + 1, wide), normal(8, 2, wide)),
    normal(5, 32, N),
    normal(6, 32, N),
  )
  arrays = *arrays, jnp.linspace(-1.0, 1.0, N)
  q_info, k_info = info(T), info(S)
  ok = np.asarray((case.get('mask', Mask()) & Segments())(q_info.rows(), k_info.columns()))
  gap = np.asarray(k_info.positions)[:, None] - np.asarray(q_info.positions)[:, :, None]
  rows = (
    np.clip(gap, -FAR, FAR) + FAR,
    (np.asarray(k_info.positions)[:, None] + np.asarray(q_info.positions)[:, :, None]) % 2,
  )
  buckets = np.asarray(bucket(gap))
  kept = np.asarray(dropout(case)(jnp.arange(T), jnp.arange(S))) if 'drop' in case else np.ones(())
  return arrays, (kept, ok, rows, buckets, case), (q_info, k_info)


def dropout(case):
  return Dropout.of(jax.random.key(9), B, N, case['drop'])


def attention(kernel, case, q_info, k_info):
  """Return attention as a function of the arrays of `inputs`."""

  def run(q, k, v, added, content_UN, bias_UN, sink_N):
    scores = Scores(
      H**-0.5,
      case.get('mask', Mask()) & Segments(),
      (t5(bias_UN),) if 't5' in case else (),
      (content_terms(content_UN),) if 'content' in case else (),
      case.get('cap'),
      sink_N if 'sink' in case else None,
      dropout(case) if 'drop' in case else None,
      case.get('mask', Mask()).causal,
      tuple(itertools.starmap(ValueTable, zip((BY_DISTANCE, BY_PARITY), added, strict=True))),
    )
    return kernel(q, k, v, q_info, k_info, scores, 'float32')

  return run


def weighted_sum(y):
  return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum()


@functools.cache
def reference(name):
  arrays, rest, _ = inputs(CASES[name])
  y = naive(np, *jax.tree.map(lambda a: np.asarray(a, np.float64), arrays), *rest)
  return y, jax.jit(jax.grad(lambda *x: weighted_sum(naive(jnp, *x, *rest)), range(7)))(*arrays)


@pytest.mark.parametrize(('name', 'kernel'), PAIRS)
@pytest.mark.large(
  when=lambda name, kernel: (
    name in ('full', 'sink', 'dropout') or (kernel == 'dense' and name in OF_VIEWS)
  )
)
def test_value_tables_match_gathered_vectors(name, kernel):
  arrays, _, infos = inputs(CASES[name])
  y, grads = reference(name)
  assert all(np.abs(table).max() > 0.1 for table in grads[3])

  def loss(*x):
    y = attention(KERNELS[kernel], CASES[name], *infos)(*x)
    return weighted_sum(y), y

  actual, actual_y = jax.jit(jax.grad(loss, range(7), has_aux=True))(*arrays)
  np.testing.assert_allclose(actual_y, y, atol=2e-5, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), actual, grads)


@pytest.mark.parametrize('kernel', ['dense', 'blockwise'])
@pytest.mark.parametrize(('T', 'S'), [(1, 40), (40, 7)])
def test_query_key_counts_and_value_size_may_differ(kernel, T, S):
  arrays, rest, infos = inputs({}, 5, T, S)
  expected = naive(np, *jax.tree.map(np.asarray, arrays), *rest)
  np.testing.assert_allclose(
    jax.jit(attention(KERNELS[kernel], {}, *infos))(*arrays), expected, atol=2e-5, rtol=1e-5
  )


@pytest.mark.parametrize('kernel', ['dense', 'blockwise'])
def test_value_tables_in_bfloat16(kernel):
  case = CASES['causal']
  arrays, rest, infos = inputs(case)
  half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), arrays[:3])
  run = attention(KERNELS[kernel], case, *infos)
  y = jax.jit(run)(*half, *arrays[3:])
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    y.astype(jnp.float32), naive(np, *map(_plain, arrays), *rest), atol=0.05
  )
  actual = jax.jit(jax.grad(lambda *x: weighted_sum(run(*x)), range(4)))(*half, *arrays[3:])
  expected = jax.jit(jax.grad(lambda *x: weighted_sum(run(*x)), range(4)))(*arrays)
  assert [g.dtype for g in jax.tree.leaves(actual)] == [jnp.bfloat16] * 3 + [jnp.float32] * 2
  for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
    np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05 * float(jnp.abs(b).max()))


def _plain(tree):
  return jax.tree.map(np.asarray, tree)


def test_masks_with_several_views_use_them():
  assert all(len(useful_views(CASES[name]['mask'], T / 4)) > 1 for name in OF_VIEWS)


@pytest.mark.parametrize('kernel', [DenseAttention(), Blockwise(16, 32)])
def test_value_tables_make_no_array_of_pairs_by_head_size(kernel):
  n, wide = 128, 64
  q, k, v = (jnp.zeros((1, n, 1, wide)) for _ in range(3))
  at = jax.tree.map(lambda a: a[1:], info(n))
  table = jnp.zeros((2 * FAR + 1, wide))

  def loss(q, k, v, table):
    return kernel(
      q,
      k,
      v,
      at,
      at,
      Scores(1.0, Causal() & Segments(), value_tables=(ValueTable(BY_DISTANCE, table),)),
      'float32',
    ).sum()

  program = jax.make_jaxpr(jax.grad(loss, range(4)))(q, k, v, table)
  sizes = [int(np.prod(x.aval.shape)) for x in variables(program.jaxpr)]
  limit = n * n if kernel == DenseAttention() else n * n // 2
  assert max(sizes) <= limit, max(sizes)


# Whole models.

IDS = np.random.default_rng(0).integers(1, 61, (2, 14)).astype(np.int32)
LEFT = np.stack([np.ones(14, np.int32), np.arange(14) > 2]).astype(np.int32)
CACHES = {'dense': DenseCache(), 'ring': RingCache(2), 'paged': PagedCache(4), 'int8': Int8Cache()}
MLA_ = MLA(4, None, 16, 8, 4, 12, Shaw(FAR, values=True))
MIXERS = {
  'grouped': decoder(Attention(4, 2, 8, Shaw(FAR, values=True), sink=True)),
  'window': decoder(Attention(4, 2, 8, Shaw(FAR, values=True), Window(6))),
  'hierarchical': decoder(Hierarchical(4, 2, 8, Shaw(FAR, values=True), block=4)),
  'latent': decoder(MLA_),
  'shared and per layer': decoder(
    Attention(4, 2, 8, Shaw(2, values=True)), shared_relative=Shaw(FAR, values=True)
  ),
  'latent, shared': decoder(
    dataclasses.replace(MLA_, relative=RoPE()), shared_relative=Shaw(FAR, values=True)
  ),
}


DECODED = [(name, 'dense') for name in MIXERS] + [
  ('grouped', cache) for cache in CACHES if cache != 'dense'
]
DECODED += [('window', 'ring'), ('latent', 'int8'), ('latent', 'paged')]
KEPT = (
  ('grouped', 'dense'),
  ('hierarchical', 'dense'),
  ('latent', 'dense'),
  ('latent', 'paged'),
  ('window', 'ring'),
)


@pytest.mark.parametrize(('name', 'cache'), DECODED)
@pytest.mark.large(when=lambda name, cache: (name, cache) not in KEPT)
def test_cached_decoding_with_value_tables_matches_full_pass(name, cache):
  spec, run = MIXERS[name], Run(cache=CACHES[cache])

  @jax.jit
  def both(p):
    empty = cache_lib.init_cache(spec, 2, 14, kind=run.cache)
    first = {'input_ids': IDS[:, :7], 'attention_mask': LEFT[:, :7]}
    prompt = transformer.apply(spec, p, run=run, cache=empty, **first)

    def step(kept, ids_B):
      out = transformer.apply(spec, p, run=run, cache=kept, input_ids=ids_B[:, None])
      return out['cache'], out['logits'][:, 0]

    _, rest = jax.lax.scan(step, prompt['cache'], jnp.asarray(IDS[:, 7:].T))
    whole = transformer.apply(spec, p, input_ids=IDS, attention_mask=LEFT)['logits']
    return jnp.concatenate([prompt['logits'], rest.swapaxes(0, 1)], 1), whole

  stepped, whole = (np.asarray(a)[LEFT > 0] for a in both(weights(spec)))
  if run.cache.exact:
    np.testing.assert_allclose(stepped, whole, atol=1e-4, rtol=1e-4)
  else:
    assert np.linalg.norm(stepped - whole) < 0.1 * np.linalg.norm(whole)


def test_latent_steps_are_absorbed():
  assert MLA_.absorbs(1, 14)
  assert not MLA_.absorbs(14, 14)


def logits(spec, params, **inputs):
  return np.asarray(jax.jit(lambda p: transformer.apply(spec, p, **inputs)['logits'])(params))


def test_distances_are_clipped_at_far():
  spec = decoder(Attention(4, relative=Shaw(FAR, values=True)))
  params = weights(spec)
  at = lambda *pos: logits(spec, params, input_ids=IDS[:1, :4], position_ids=np.asarray([pos]))[
    0, -1
  ]
  np.testing.assert_allclose(at(0, 1, 2, 50), at(0, 1, 2, 5), atol=1e-5)
  assert np.abs(at(0, 1, 2, 5) - at(0, 1, 2, 4)).max() > 1e-2


def test_value_table_alone_makes_order_matter():
  mixer = Attention(4, mask=Mask(), relative=Shaw(FAR, values=True))
  spec, plain = decoder(mixer), decoder(dataclasses.replace(mixer, relative=Shaw(FAR)))
  params = weights(spec)

  def without(*names):
    own = lambda path: path[-1].key in names and 'relative' in jax.tree_util.keystr(path)
    return jax.tree_util.tree_map_with_path(lambda path, a: 0 * a if own(path) else a, params)

  less = without('values')
  zeroed = logits(spec, less, input_ids=IDS)
  del less['segment_0']['block_0']['mixer']['relative']['values']
  np.testing.assert_allclose(zeroed, logits(plain, less, input_ids=IDS), atol=1e-5)
  assert np.abs(zeroed - logits(spec, params, input_ids=IDS)).max() > 0.1
  swapped = IDS[:, [*range(11), 12, 11, 13]]
  last = lambda p, ids: logits(spec, p, input_ids=ids)[:, -1]
  np.testing.assert_allclose(
    last(without('table', 'values'), IDS), last(without('table', 'values'), swapped), atol=1e-4
  )
  assert np.abs(last(without('table'), IDS) - last(without('table'), swapped)).max() > 1e-2


@pytest.mark.parametrize('mixer', [Attention(4, 2, 8, Shaw(FAR, values=True)), MLA_])
def test_value_table_has_the_value_size_and_is_counted(mixer):
  plain = dataclasses.replace(mixer, relative=Shaw(FAR))
  more = count.count_params(decoder(mixer)) - count.count_params(decoder(plain))
  assert more == 2 * (2 * FAR + 1) * {8: 8, 4: 12}[mixer.relative_dim(32)]
  params = transformer.init(decoder(mixer), jax.random.key(0))
  assert count.count_params(decoder(mixer)) == sum(a.size for a in jax.tree.leaves(params))


def test_captured_attentions_exclude_value_tables():
  spec = decoder(Attention(4, 2, 8, Shaw(FAR, values=True)))
  params = weights(spec)
  out = jax.jit(lambda p: transformer.apply(spec, p, input_ids=IDS, output_attentions=True))(params)
  for p_BNTS in out['attentions']:
    np.testing.assert_allclose(np.asarray(p_BNTS).sum(-1), 1, atol=1e-5)


def test_shared_value_table_needs_one_value_size():
  block = lambda mixer: Block(mixer, Glu(8))
  blocks = block(Attention(2, head_dim=4)), block(MLA(2, None, 8, 4, 4, 6))
  model = lambda relative: Model(Tokens(16), 8, (Segment(blocks),), shared_relative=relative)
  with pytest.raises(
    errors.ConfigError,
    match=r'shared_relative: it is added to values of sizes \[4, 6\]. Expected one size',
  ):
    config.validate(model(Shaw(values=True)))
  config.validate(model(Shaw()))
