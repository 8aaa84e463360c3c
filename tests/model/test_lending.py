"""Keys and values of earlier layers, per-layer embeddings, and several residual streams."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.generate import prepare
from tfm.model import count, transformer
from tfm.model.cache import init_cache
from tfm.model.spec import Block, Model, Segment
from tfm.parts.cache import Int8Cache, PagedCache, RingCache
from tfm.parts.context import Run
from tfm.parts.embed import PerLayer, Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mask import Causal, Window
from tfm.parts.mixer import Attention, Borrowed, Mamba2, Sum
from tfm.parts.mtp import SequentialMTP
from tfm.parts.norm import RMSNorm
from tfm.parts.resample import Merge
from tfm.parts.residual import AltUp, Reversible
from tfm.parts.residual_layout import Laurel

LENT, BORROWED = Attention(4, 2, 8, lends='kv'), Borrowed(4, 2, 8)


def model(*mixers, **fields):
  """Return a model with a segment of two layers for each mixer."""
  segments = tuple(Segment((Block(mixer, Glu(48)),), 2) for mixer in mixers)
  return Model(fields.pop('embed', Tokens(64)), 32, segments, **fields)


def noisy_params(spec):
  """Return initial parameters with noise."""
  params = transformer.init(spec, jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  return tree.unflatten([a + 0.1 * rng.standard_normal(a.shape).astype(np.float32) for a in leaves])


IDS = jnp.asarray(np.random.default_rng(0).integers(1, 64, (2, 12)))


def test_borrowers_use_the_keys_of_the_last_lender():
  """The result equals attention with the weights of the lender, if both have the same input."""
  spec = model(LENT, BORROWED)
  params = noisy_params(spec)
  silent = {'o': {'kernel': jnp.zeros((2, 4, 8, 32))}}
  params['segment_0']['block_0']['mixer'] |= silent
  params['segment_0']['block_0']['ffn']['down']['kernel'] *= 0
  params['segment_0']['block_0']['mixer_norm']['scale'] = jnp.ones((2, 32))
  params['segment_1']['block_0']['mixer_norm']['scale'] = jnp.ones((2, 32))
  plain = Segment((Block(dataclasses.replace(LENT, lends=''), Glu(48)),), 1)
  last = jax.tree.map(lambda a: a[:1], params['segment_1'])
  lender = params['segment_0']['block_0']['mixer']
  last['block_0']['mixer'] |= {name: jax.tree.map(lambda a: a[1:], lender[name]) for name in 'kv'}
  one = dataclasses.replace(
    spec, segments=(spec.segments[0], Segment((Block(BORROWED, Glu(48)),), 1))
  )
  borrowed = transformer.apply(
    one, params | {'segment_1': jax.tree.map(lambda a: a[:1], params['segment_1'])}, input_ids=IDS
  )
  expected = transformer.apply(
    dataclasses.replace(spec, segments=(plain,)),
    {k: v for k, v in params.items() if k != 'segment_1'} | {'segment_0': last},
    input_ids=IDS,
  )
  np.testing.assert_allclose(borrowed['logits'], expected['logits'], atol=1e-5)


@pytest.mark.parametrize('kind', [RingCache(), PagedCache(4), Int8Cache()])
@pytest.mark.parametrize('layout', ['later', 'in-turns'])
def test_cached_decoding_matches_full_forward_pass(kind, layout):
  mask = Causal() & Window(5)
  lent, borrowed = (dataclasses.replace(mixer, mask=mask) for mixer in (LENT, BORROWED))
  spec = model(lent, borrowed)
  if layout == 'in-turns':
    spec = dataclasses.replace(
      spec, segments=(Segment((Block(lent, Glu(48)), Block(borrowed, Glu(48))), 2),)
    )
  params = noisy_params(spec)
  run = Run(cache=kind)
  cache, logits = init_cache(spec, 2, 12, kind=kind), []
  for ids in jnp.split(IDS, [5, 8], 1):
    out = transformer.apply(spec, params, input_ids=ids, cache=cache, run=run)
    cache, logits = out['cache'], [*logits, out['logits']]
  expected = transformer.apply(spec, params, input_ids=IDS)['logits']
  atol = 0.05 if isinstance(kind, Int8Cache) else 1e-5
  atol *= np.abs(expected).max()
  np.testing.assert_allclose(np.concatenate(logits, 1), expected, atol=atol)


def test_borrowers_have_no_cache_and_fewer_flops():
  plain = dataclasses.replace(LENT, lends='')
  assert count.cache_bytes(model(LENT, BORROWED), 8) == count.cache_bytes(model(plain), 8)
  assert (
    count.count_params(model(plain, plain)) - count.count_params(model(LENT, BORROWED))
    == 2 * 2 * 32 * 2 * 8
  )
  assert plain.flops(32, 4) - BORROWED.flops(32, 4) == 2 * 2 * 32 * 2 * 8


def test_prepared_streams_compute_the_same():
  spec = model(LENT, BORROWED, embed=PerLayer(64, layer_dim=6), residual=AltUp(3, inputs=6))
  block = lambda s: tuple(dataclasses.replace(b, residual_layout=Laurel(4)) for b in s.pattern)
  spec = dataclasses.replace(
    spec, segments=tuple(dataclasses.replace(s, pattern=block(s)) for s in spec.segments)
  )
  params = noisy_params(spec)
  run = lambda params: transformer.apply(spec, params, input_ids=IDS)['logits']
  np.testing.assert_allclose(run(prepare(spec, params)), run(params), atol=1e-5)


def test_tokens_outside_the_second_table_use_entry_0():
  spec = model(
    Attention(4), embed=PerLayer(64, layer_vocab=10, layer_dim=6), residual=AltUp(2, inputs=6)
  )
  params = noisy_params(spec)
  table = params['embed']['layer_table']
  other = params | {'embed': params['embed'] | {'layer_table': table.at[0].add(1.0)}}
  run = lambda params, ids: transformer.apply(spec, params, input_ids=jnp.asarray([ids]))['logits']
  assert np.abs(run(params, [10, 63]) - run(other, [10, 63])).max() > 1e-4
  np.testing.assert_array_equal(run(params, [3, 9]), run(other, [3, 9]))


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (
      model(BORROWED),
      r"pattern\.0\.mixer: no earlier layer lends 'kv'\. Expected an earlier layer with",
    ),
    (
      model(LENT, Borrowed(4, 1, 8)),
      r"the keys of 'kv' have shape \(2, 8\) per token, and this layer has \(1, 8\)\. Expected",
    ),
    (
      model(LENT),
      r'no later layer uses the keys and values that lends=kv provides\. Expected mixer=borrowed',
    ),
    (model(Sum(LENT, Mamba2(4, 8, 6))), r'no later layer uses the keys and values'),
    (
      model(LENT, BORROWED, residual=Reversible()),
      r'residual=reversible recomputes each layer without the keys of other layers',
    ),
    (
      model(LENT, BORROWED, mtp=SequentialMTP()),
      r'mtp repeats the last layer, which borrows keys',
    ),
    (
      model(Borrowed(4, bias='k')),
      r'lends, v_norm and biases of k and v need keys and values, and this layer has none',
    ),
    (
      model(Attention(4), embed=PerLayer(64)),
      r'per-layer embeddings of width 256, and residual uses 0 \(0: none\)',
    ),
    (
      model(Attention(4), residual=AltUp(inputs=4)),
      r'width 0, and residual uses 4 \(0: none\)\. Expected embed=per_layer',
    ),
    (
      model(Attention(4), residual=AltUp(1)),
      r'streams=1 is too small for residual=altup\. Expected at least 2',
    ),
    (
      model(Attention(4), residual=AltUp(inputs=-1)),
      r'inputs=-1 is not a width\. Expected at least 1, or 0',
    ),
    (
      model(Attention(4), embed=PerLayer(64, layer_dim=0)),
      r'layer_dim=0 is not a size\. Expected at least 1',
    ),
    (
      model(Attention(4), embed=PerLayer(64, dim=8)),
      r'dim and a shared table cannot be combined with per-layer embeddings',
    ),
    (model(Attention(4, dropout=0.0), norm=RMSNorm(), residual=AltUp()), None),
  ],
)
def test_models_with_missing_or_unused_outputs_raise(spec, message):
  if message is None:
    config.validate(spec)
    return
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(spec)


def test_residual_layouts_and_feed_forwards_check_fields():
  for part, message in (
    (Block(residual_layout=Laurel(0)), 'rank=0 is not a rank'),
    (Block(ffn=Glu(sparsity=1.0)), 'sparsity=1.0'),
  ):
    with pytest.raises(errors.ConfigError, match=message):
      config.validate(Model(Tokens(64), 64, (Segment((part,)),)))


def test_several_streams_with_resampling_raise():
  merged = Segment((Block(Attention(4), Glu(48)),), resample=Merge(), d_model=48)
  spec = model(Attention(4), residual=AltUp())
  with pytest.raises(
    errors.ConfigError, match='residual has parameters in every block, and a segment resamples'
  ):
    config.validate(dataclasses.replace(spec, segments=(*spec.segments, merged)))
