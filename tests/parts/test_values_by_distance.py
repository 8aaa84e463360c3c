"""Vectors of a distance that are added to values (Shaw's second table) against every pair's,
gathered one by one.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import decoder, weights
from tests.parts.attending import asked, drawn, info, t5
from tests.parts.jaxprs import variables
from tfm.core import config, errors
from tfm.model import cache as cache_lib
from tfm.model import count, transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.attend import Blockwise, DenseAttention, Staircase
from tfm.parts.attend.added import Added
from tfm.parts.attend.base import Scores
from tfm.parts.attend.dropout import Dropout
from tfm.parts.attend.views import worth
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
  """y and all that it is made of, written for numpy: a vector is gathered for every pair of a query
  and a key.
  """
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
  'two views and one more': {'mask': Window(9) & Strided(4) & Fixed(5, 2)},
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
OF_VIEWS = ('strided', 'two views and one more')
# The stairs are dense attention, one after the other; whether they stand right does not go by the
# case.
ASKED = [
  (c, k)
  for c, k in itertools.product(CASES, KERNELS)
  if k == 'dense' or (k == 'views' and c in OF_VIEWS)
]
ASKED += [(c, 'blockwise') for c in CASES if c not in OF_VIEWS] + [('all', 'staircase')]
T = 36


def told(case, wide=H, T=T, S=T):
  """(the arrays that have gradients, what `naive` is told besides)."""
  q, k, v = drawn(T, S, wide=wide)
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
  asking, seen = info(T), info(S)
  ok = np.asarray((case.get('mask', Mask()) & Segments())(asking.rows(), seen.columns()))
  gap = np.asarray(seen.positions)[:, None] - np.asarray(asking.positions)[:, :, None]
  rows = (
    np.clip(gap, -FAR, FAR) + FAR,
    (np.asarray(seen.positions)[:, None] + np.asarray(asking.positions)[:, :, None]) % 2,
  )
  buckets = np.asarray(bucket(gap))
  kept = np.asarray(dropout(case)(jnp.arange(T), jnp.arange(S))) if 'drop' in case else np.ones(())
  return arrays, (kept, ok, rows, buckets, case), (asking, seen)


def dropout(case):
  return Dropout.of(jax.random.key(9), B, N, case['drop'])


def ours(kernel, case, asking, seen):
  """A function of the arrays of `told`."""

  def run(q, k, v, added, content_UN, bias_UN, sink_N):
    scores = Scores(
      H**-0.5,
      case.get('mask', Mask()) & Segments(),
      (t5(bias_UN),) if 't5' in case else (),
      (asked(content_UN),) if 'content' in case else (),
      case.get('cap'),
      sink_N if 'sink' in case else None,
      dropout(case) if 'drop' in case else None,
      case.get('mask', Mask()).causal,
      tuple(itertools.starmap(Added, zip((BY_DISTANCE, BY_PARITY), added, strict=True))),
    )
    return kernel(q, k, v, asking, seen, scores, 'float32')

  return run


def weighed(y):
  return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum()


@functools.cache
def wanted(name):
  arrays, rest, _ = told(CASES[name])
  y = naive(np, *jax.tree.map(lambda a: np.asarray(a, np.float64), arrays), *rest)
  return y, jax.jit(jax.grad(lambda *x: weighed(naive(jnp, *x, *rest)), range(7)))(*arrays)


@pytest.mark.parametrize(('name', 'kernel'), ASKED)
@pytest.mark.large(
  when=lambda name, kernel: (
    name in ('full', 'sink', 'dropout') or (kernel == 'dense' and name in OF_VIEWS)
  )
)
def test_a_kernel_reads_what_a_vector_gathered_for_every_pair_gives(name, kernel):
  arrays, _, infos = told(CASES[name])
  y, grads = wanted(name)
  assert all(np.abs(table).max() > 0.1 for table in grads[3])

  def loss(*x):
    y = ours(KERNELS[kernel], CASES[name], *infos)(*x)
    return weighed(y), y

  got, got_y = jax.jit(jax.grad(loss, range(7), has_aux=True))(*arrays)
  np.testing.assert_allclose(got_y, y, atol=2e-5, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), got, grads)


@pytest.mark.parametrize('kernel', ['dense', 'blockwise'])
@pytest.mark.parametrize(('T', 'S'), [(1, 40), (40, 7)])
def test_queries_and_keys_may_differ_in_number_and_values_in_width(kernel, T, S):
  arrays, rest, infos = told({}, 5, T, S)
  want = naive(np, *jax.tree.map(np.asarray, arrays), *rest)
  np.testing.assert_allclose(
    jax.jit(ours(KERNELS[kernel], {}, *infos))(*arrays), want, atol=2e-5, rtol=1e-5
  )


@pytest.mark.parametrize('kernel', ['dense', 'blockwise'])
def test_in_half_precision_it_is_near_and_has_gradients_of_its_own_dtypes(kernel):
  case = CASES['causal']
  arrays, rest, infos = told(case)
  half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), arrays[:3])
  run = ours(KERNELS[kernel], case, *infos)
  y = jax.jit(run)(*half, *arrays[3:])
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    y.astype(jnp.float32), naive(np, *map(_plain, arrays), *rest), atol=0.05
  )
  got = jax.jit(jax.grad(lambda *x: weighed(run(*x)), range(4)))(*half, *arrays[3:])
  want = jax.jit(jax.grad(lambda *x: weighed(run(*x)), range(4)))(*arrays)
  assert [g.dtype for g in jax.tree.leaves(got)] == [jnp.bfloat16] * 3 + [jnp.float32] * 2
  for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
    np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05 * float(jnp.abs(b).max()))


def _plain(tree):
  return jax.tree.map(np.asarray, tree)


def test_masks_of_several_views_are_asked_in_them():
  assert all(len(worth(CASES[name]['mask'], T / 4)) > 1 for name in OF_VIEWS)


@pytest.mark.parametrize('kernel', [DenseAttention(), Blockwise(16, 32)])
def test_no_array_is_of_queries_by_keys_by_numbers_of_a_value(kernel):
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
      Scores(1.0, Causal() & Segments(), added=(Added(BY_DISTANCE, table),)),
      'float32',
    ).sum()

  found = jax.make_jaxpr(jax.grad(loss, range(4)))(q, k, v, table)
  sizes = [int(np.prod(x.aval.shape)) for x in variables(found.jaxpr)]
  most = n * n if kernel == DenseAttention() else n * n // 2
  assert max(sizes) <= most, max(sizes)


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
  "shared, and a layer's own": decoder(
    Attention(4, 2, 8, Shaw(2, values=True)), shared_relative=Shaw(FAR, values=True)
  ),
  'latents that share': decoder(
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
def test_a_prompt_and_then_a_token_at_a_time_say_what_the_whole_row_says(name, cache):
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


def test_steps_of_latents_are_absorbed():
  assert MLA_.absorbs(1, 14)
  assert not MLA_.absorbs(14, 14)


def said(spec, params, **inputs):
  return np.asarray(jax.jit(lambda p: transformer.apply(spec, p, **inputs)['logits'])(params))


def test_keys_farther_than_far_are_all_as_far_as_that():
  spec = decoder(Attention(4, relative=Shaw(FAR, values=True)))
  params = weights(spec)
  at = lambda *pos: said(spec, params, input_ids=IDS[:1, :4], position_ids=np.asarray([pos]))[0, -1]
  np.testing.assert_allclose(at(0, 1, 2, 50), at(0, 1, 2, 5), atol=1e-5)
  assert np.abs(at(0, 1, 2, 5) - at(0, 1, 2, 4)).max() > 1e-2


def test_values_tell_of_order_where_nothing_else_does_and_a_table_of_zeros_is_none():
  mixer = Attention(4, mask=Mask(), relative=Shaw(FAR, values=True))
  spec, plain = decoder(mixer), decoder(dataclasses.replace(mixer, relative=Shaw(FAR)))
  params = weights(spec)

  def without(*names):
    own = lambda path: path[-1].key in names and 'relative' in jax.tree_util.keystr(path)
    return jax.tree_util.tree_map_with_path(lambda path, a: 0 * a if own(path) else a, params)

  less = without('values')
  zeroed = said(spec, less, input_ids=IDS)
  del less['segment_0']['block_0']['mixer']['relative']['values']
  np.testing.assert_allclose(zeroed, said(plain, less, input_ids=IDS), atol=1e-5)
  assert np.abs(zeroed - said(spec, params, input_ids=IDS)).max() > 0.1
  swapped = IDS[:, [*range(11), 12, 11, 13]]
  last = lambda p, ids: said(spec, p, input_ids=ids)[:, -1]
  np.testing.assert_allclose(
    last(without('table', 'values'), IDS), last(without('table', 'values'), swapped), atol=1e-4
  )
  assert np.abs(last(without('table'), IDS) - last(without('table'), swapped)).max() > 1e-2


@pytest.mark.parametrize('mixer', [Attention(4, 2, 8, Shaw(FAR, values=True)), MLA_])
def test_the_second_table_is_as_wide_as_values_and_counted(mixer):
  plain = dataclasses.replace(mixer, relative=Shaw(FAR))
  more = count.count_params(decoder(mixer)) - count.count_params(decoder(plain))
  assert more == 2 * (2 * FAR + 1) * {8: 8, 4: 12}[mixer.told_dim(32)]
  params = transformer.init(decoder(mixer), jax.random.key(0))
  assert count.count_params(decoder(mixer)) == sum(a.size for a in jax.tree.leaves(params))


def test_attentions_tell_of_probabilities_and_not_of_what_values_are_told():
  spec = decoder(Attention(4, 2, 8, Shaw(FAR, values=True)))
  params = weights(spec)
  out = jax.jit(lambda p: transformer.apply(spec, p, input_ids=IDS, output_attentions=True))(params)
  for p_BNTS in out['attentions']:
    np.testing.assert_allclose(np.asarray(p_BNTS).sum(-1), 1, atol=1e-5)


def test_a_stack_shares_it_where_values_are_of_one_width_and_is_refused_elsewhere():
  block = lambda mixer: Block(mixer, Glu(8))
  blocks = block(Attention(2, head_dim=4)), block(MLA(2, None, 8, 4, 4, 6))
  model = lambda relative: Model(Tokens(16), 8, (Segment(blocks),), shared_relative=relative)
  with pytest.raises(
    errors.ConfigError,
    match=r'shared_relative: it is added to values of sizes \[4, 6\]. Expected one size',
  ):
    config.validate(model(Shaw(values=True)))
  config.validate(model(Shaw()))
