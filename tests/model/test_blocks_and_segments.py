"""Blocks without a mixer, feed-forward or cross-attention, and segments that resample."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.towers import (
  apply,
  block,
  close,
  linear,
  model,
  normal,
  normalised,
  params,
  source,
)
from tfm import generate
from tfm.core import config, errors
from tfm.generate.prepare import prepare
from tfm.model import count, transformer
from tfm.model.cache import init_cache, rewind, select_sequences
from tfm.model.spec import Block, Model, Segment
from tfm.parts.cache import TABLE as CACHES
from tfm.parts.cache import DenseCache
from tfm.parts.context import Run
from tfm.parts.cross import CrossAttention
from tfm.parts.embed import Features, Tokens
from tfm.parts.ffn import Glu
from tfm.parts.head import Classify, Lm, Regress, Unpatchify
from tfm.parts.mask import Causal, Mask
from tfm.parts.mixer import Attention
from tfm.parts.mtp import SequentialMTP
from tfm.parts.norm import LayerNorm
from tfm.parts.relative import RoPE, T5Bias
from tfm.parts.resample import Merge, Stride
from tfm.parts.residual import Reversible
from tfm.parts.residual_layout import TABLE as LAYOUTS
from tfm.parts.residual_scale import Gru

B, T, D, F = 2, 6, 32, 48
IDS = jnp.asarray(np.random.default_rng(0).integers(1, 61, (B, T)), jnp.int32)
WHOLE = block(Causal(), ffn=Glu(F), cross=CrossAttention(4, None, 8, tower='inputs'))
VECTORS = {'vectors': normal(B, 5, 5)}


def decoder(*pattern: Block, **fields) -> Model:
  """Return a language model of these blocks, with a tower of vectors if one is read."""
  crosses = [block.cross for block in pattern if block.cross is not None]
  read = {'inputs': source()} if crosses else {}
  return model(Tokens(61), *pattern, heads={'lm': Lm()}, towers=read, **fields)


@pytest.mark.parametrize('part', ['mixer', 'ffn', 'cross'])
def test_missing_part_has_no_parameters_and_no_flops(part):
  whole, lacking = decoder(WHOLE), decoder(dataclasses.replace(WHOLE, **{part: None}))
  lacking = lacking.with_towers(**whole.towers)
  size = {'mixer': 4 * D * D, 'ffn': 3 * D * F, 'cross': 4 * D * D}[part] + 2 * D  # with its norm
  assert count.count_params(whole) - count.count_params(lacking) == 2 * size
  block_params = transformer.param_shapes(lacking)['segment_0']['block_0']
  assert {part, f'{part}_norm'}.isdisjoint(block_params)
  flops = {
    'mixer': 2 * 4 * D * D + 4 * D * (10 + 1) / 2,  # projections, and pairs of a causal mask
    'ffn': 2 * 3 * D * F,
    'cross': 2 * 2 * D * D
    + 4 * D * 10
    + 2 * 2 * D * D,  # queries and outputs, pairs, keys and values
  }[part]
  assert count.flops_per_token(whole, 10) - count.flops_per_token(lacking, 10) == 2 * flops
  table = count.table(lacking, 10)
  assert sum(row.params * row.repeats for row in table) == count.count_params(lacking)
  assert sum(row.flops * row.repeats for row in table) == pytest.approx(
    count.flops_per_token(lacking, 10)
  )
  assert part not in next(row.parts for row in table if row.where == 'segments.0.pattern.0')


@pytest.mark.parametrize('part', ['mixer', 'ffn', 'cross'])
@pytest.mark.parametrize('residual_layout', LAYOUTS)
def test_block_is_the_sum_of_its_branches(part, residual_layout):
  """Compare a missing part with an output projection of zeros."""
  own = dataclasses.replace(WHOLE, residual_layout=LAYOUTS[residual_layout]())
  whole, lacking = decoder(own), decoder(dataclasses.replace(own, **{part: None}))
  lacking = lacking.with_towers(**whole.towers)
  p = params(whole)
  last = 'down' if part == 'ffn' else 'o'
  layers = p['segment_0']['block_0']
  zero = jax.tree.map(jnp.zeros_like, layers[part][last])
  silent = p | {'segment_0': {'block_0': layers | {part: layers[part] | {last: zero}}}}
  fewer = {n: v for n, v in layers.items() if n not in (part, f'{part}_norm', f'{part}_post_norm')}
  given = {'input_ids': IDS} | VECTORS
  expected = apply(whole, silent, given)['logits']
  # These change the stream also after a branch of zeros.
  if residual_layout in ('post', 'adapted', 'laurel', 'normed'):
    assert np.isfinite(apply(lacking, p | {'segment_0': {'block_0': fewer}}, given)['logits']).all()
    return
  if residual_layout in ('after', 'sandwich'):  # their norm after the branch has a bias
    norm = f'{part}_norm' if residual_layout == 'after' else f'{part}_post_norm'
    silent['segment_0']['block_0'][norm] = jax.tree.map(jnp.zeros_like, layers[norm])
    expected = apply(whole, silent, given)['logits']
  close(apply(lacking, p | {'segment_0': {'block_0': fewer}}, given)['logits'], expected)


def test_empty_block_is_an_error():
  with pytest.raises(
    errors.ConfigError, match='mixer, ffn and cross are all none, so the block is empty'
  ):
    decoder(block(mixer=None, ffn=None))


MIXED = decoder(
  block(Causal()), block(mixer=None), block(Causal(), ffn=None), block(Causal(), mixer=None)
)


@pytest.mark.parametrize('kind', CACHES)
def test_cached_decoding_without_some_mixers_is_exact(kind):
  p, run = params(MIXED), Run(cache=CACHES[kind]())
  step = jax.jit(
    lambda cache, ids: transformer.apply(MIXED, p, run=run, cache=cache, input_ids=ids)
  )
  out = step(init_cache(MIXED, B, T, kind=run.cache), IDS[:, :3])
  found = [out['logits']]
  for t in range(3, T):
    out = step(out['cache'], IDS[:, t : t + 1])
    found.append(out['logits'])
  whole = apply(MIXED, p, {'input_ids': IDS})['logits']
  tolerance = {} if run.cache.exact else {'atol': 0.3 * float(np.abs(whole).max())}
  close(jnp.concatenate(found, 1), whole, **tolerance)


def test_block_without_a_mixer_caches_nothing():
  cache = init_cache(MIXED, B, T)
  assert [len(jax.tree.leaves(block)) > 0 for block in cache['layers'][0]] == [
    True,
    False,
    True,
    False,
  ]
  attention = 2 * D * 4  # keys and values in float32
  assert count.cache_bytes_per_token(MIXED, jnp.float32) == 2 * 2 * attention
  swapped = select_sequences(rewind(cache, cache['slot']), DenseCache(), jnp.asarray([1, 0]))
  assert jax.tree.structure(swapped) == jax.tree.structure(cache)


def test_prepared_segment_without_mixers_decodes():
  spec = decoder(block(Causal())).with_heads(lm=Lm(tied=False))
  spec = dataclasses.replace(spec, segments=(*spec.segments, Segment((block(mixer=None),), 2)))
  p = params(spec)
  whole = apply(spec, p, {'input_ids': IDS})['logits']
  for own in (p, prepare(spec, p)):
    out = apply(spec, own, {'input_ids': IDS[:, :4]}, init_cache(spec, B, T))
    later = apply(spec, own, {'input_ids': IDS[:, 4:]}, out['cache'])
    close(jnp.concatenate([out['logits'], later['logits']], 1), whole, atol=1e-4)


def test_beams_with_blocks_without_mixers_start_greedily():
  p, prompts = params(MIXED), np.asarray(IDS)[:, :4].tolist()
  greedy = generate.generate(MIXED, p, prompts, max_new_tokens=1, temperature=0)
  assert generate.generate(MIXED, p, prompts, max_new_tokens=1, beams=3, temperature=0) == greedy


@pytest.mark.parametrize('part', ['mixer', 'ffn', 'cross'])
def test_reversible_blocks_may_lack_a_part(part):
  own = dataclasses.replace(WHOLE, **{part: None})
  spec = decoder(own, dataclasses.replace(own, residual_scale=Gru()), residual=Reversible())
  spec = spec.with_towers(inputs=source()) if part != 'cross' else spec
  p, given = params(spec), {'input_ids': IDS} | (VECTORS if part != 'cross' else {})
  loss = lambda p: jnp.mean(transformer.apply(spec, p, **given)['logits'] ** 2)
  value, grads = jax.jit(jax.value_and_grad(loss))(p)
  assert np.isfinite(value)
  # The reference is plain autodiff, through a loop over separate parameter trees.
  unstacked = p | {n: _unstack(v) for n, v in p.items() if n.startswith('segment_')}
  for name, expected in jax.jit(jax.grad(loss))(unstacked).items():
    found = _unstack(grads[name]) if name.startswith('segment_') else grads[name]
    jax.tree.map(functools.partial(close, atol=1e-4, rtol=1e-3), found, expected)


def _unstack(tree_L):
  return tuple(jax.tree.map(lambda a, i=i: a[i], tree_L) for i in range(2))


def test_shared_relative_skips_blocks_without_mixers():
  spec = decoder(block(Causal()), block(mixer=None), shared_relative=T5Bias())
  out = apply(spec, params(spec), {'input_ids': IDS})['logits']
  assert out.shape == (B, T, 61)


def test_mtp_needs_a_last_layer_with_a_mixer():
  with pytest.raises(errors.ConfigError, match='mtp repeats the last layer, which has no mixer'):
    decoder(block(Causal()), block(mixer=None), mtp=SequentialMTP())


def hierarchy(grid=(4, 6), **head) -> Model:
  """Return a Swin-like model: patches, two layers, a merge to twice the width, one layer."""
  wide = Block(Attention(4, None, 16, mask=Mask()), Glu(F), LayerNorm())
  segments = (Segment((block(),), 2), Segment((wide,), 1, resample=Merge(), d_model=64))
  heads = head or {'classify': Classify(5, 'mean')}
  return config.validate(
    Model(Features('patches', 5, grid=grid), D, segments, norm=LayerNorm(), heads=heads)
  )


def test_merge_joins_squares_of_patches_into_wider_tokens():
  spec = hierarchy()
  p, x = params(spec), normal(B, 24, 5)
  out = transformer.apply(spec, p, patches=x, output_hidden_states=True)
  before, after = out['hidden_states'][1], out['hidden_states'][2]
  assert (before.shape, after.shape) == ((B, 24, D), (B, 6, 64))
  assert out['last_hidden_state'].shape == (B, 6, 64)
  assert out['logits'].shape == (B, 5)


def test_merge_is_the_published_formula():
  """Channels of [x_00, x_10, x_01, x_11], as in Swin's PatchMerging, normalised and projected."""
  spec = dataclasses.replace(
    hierarchy(), segments=(Segment((block(),), 1, resample=Merge(), d_model=D),)
  )
  p, x = params(spec), normal(B, 24, 5)
  found = transformer.apply(spec, p, patches=x, output_hidden_states=True)['hidden_states'][0]
  image = linear(x, p['embed']['project']).reshape(B, 4, 6, D)
  corners = [image[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
  joined = normalised(np.concatenate(corners, -1).reshape(B, 6, 4 * D))
  own = p['segment_0_resample']
  joined = joined * np.asarray(own['norm']['scale']) + np.asarray(own['norm']['bias'])
  close(found, joined @ np.asarray(own['project']['kernel']), atol=1e-4)


def test_image_is_reconstructed_from_merged_patches():
  spec = hierarchy(image=Unpatchify(2, 3))
  out = apply(spec, params(spec), {'patches': normal(B, 24, 5)})
  assert out['predictions'].shape == (B, 3, 4, 6)


@pytest.mark.parametrize('loop', ['scan', 'unroll'])
def test_gradients_reach_both_sides_of_a_merge(loop):
  spec = hierarchy()
  p, x = params(spec), normal(B, 24, 5)
  loss = lambda p: jnp.mean(
    transformer.apply(spec, p, run=Run(loop=loop), patches=x)['logits'] ** 2
  )
  for path, g in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(p)):
    # A bias of keys would get none; these layers have no biases.
    assert np.abs(g).max() > 0, path


def test_hierarchy_counts_parameters_and_flops_per_width():
  spec = hierarchy()
  table = count.table(spec)
  assert sum(row.params * row.repeats for row in table) == count.count_params(spec)
  assert sum(row.flops * row.repeats for row in table) == pytest.approx(
    count.flops_per_token(spec, 24)
  )
  layer = lambda d, n: n * (2 * 4 * d * d + 4 * d * n + 2 * 3 * d * F)
  expected = 24 * 2 * 5 * D + 2 * layer(D, 24) + 6 * 2 * 4 * D * 64 + layer(64, 6) + 2 * 64 * 5
  assert count.flops_of_document(spec, 24) == expected


def test_indivisible_grid_is_an_error():
  spec = hierarchy(grid=(3, 6))
  with pytest.raises(errors.UserError, match='a grid of 3 x 6 patches is not divisible by size=2'):
    jax.eval_shape(
      lambda p: transformer.apply(spec, p, patches=normal(B, 18, 5)), transformer.param_shapes(spec)
    )


def strided(size=2, width=48, mask: Mask = Mask()) -> Model:
  """Return a model that joins neighbouring tokens to wider ones after its first layers."""
  wide = Block(Attention(4, None, 12, RoPE(), mask), Glu(F), LayerNorm())
  segments = (Segment((block(mask),), 2), Segment((wide,), 2, resample=Stride(size), d_model=width))
  return config.validate(
    Model(Tokens(61), D, segments, norm=LayerNorm(), heads={'values': Regress(3)})
  )


@pytest.mark.parametrize('length', [6, 5, 1])
def test_stride_shortens_any_length(length):
  spec = strided()
  out = apply(spec, params(spec), {'input_ids': IDS[:, :length]})
  assert out['last_hidden_state'].shape == (B, -(-length // 2), 48)


def test_stride_is_a_convolution():
  spec = dataclasses.replace(
    strided(), segments=(Segment((block(),), 1, resample=Stride(3), d_model=D),)
  )
  p = params(spec)
  found = transformer.apply(spec, p, input_ids=IDS, output_hidden_states=True)['hidden_states'][0]
  x, kernel = (
    np.asarray(p['embed']['table'])[IDS],
    np.asarray(p['segment_0_resample']['project']['kernel']),
  )
  kernel = kernel.reshape(3, D, D)
  bias = np.asarray(p['segment_0_resample']['project']['bias'])
  window = lambda t: sum(x[:, t + i] @ kernel[i] for i in range(3)) + bias
  close(found, np.stack([window(0), window(3)], 1))


def test_packed_strided_texts_match_separate_ones():
  spec = strided()
  p = params(spec)
  alone = [apply(spec, p, {'input_ids': IDS[:1, :n]})['predictions'] for n in (4, 5)]
  ids = jnp.concatenate([IDS[:1, :4], IDS[:1, :5], jnp.zeros((1, 3), jnp.int32)], 1)
  packed = {'input_ids': ids, 'segment_ids': jnp.asarray([[1] * 4 + [2] * 5 + [0] * 3])}
  found = apply(spec, p, packed)['predictions']
  close(found[:, :2], alone[0])
  close(found[:, 2:5], alone[1])


def test_group_that_begins_with_padding_keeps_its_tokens():
  spec = strided()
  p = params(spec)
  ids = jnp.concatenate([jnp.zeros((B, 1), jnp.int32), IDS[:, :5]], 1)
  mask = jnp.ones((B, 6), jnp.int32).at[:, 0].set(0)
  before = apply(spec, p, {'input_ids': ids, 'attention_mask': mask})['predictions']
  after = apply(spec, p, {'input_ids': ids.at[:, 1].add(1), 'attention_mask': mask})['predictions']
  assert np.abs(after - before).max() > 1e-3
  close(
    apply(spec, p, {'input_ids': ids.at[:, 0].set(7), 'attention_mask': mask})['predictions'],
    before,
  )


def test_resampled_model_is_not_causal():
  spec = strided(mask=Causal())
  assert not spec.causal
  assert spec.ahead
  assert dataclasses.replace(spec, segments=spec.segments[:1]).causal


def test_resampled_model_has_no_cache():
  with pytest.raises(
    errors.UserError, match='a segment of the model changes the length of the sequence'
  ):
    init_cache(strided(), B, T)


@pytest.mark.parametrize(
  ('segment', 'message'),
  [
    (Segment((block(),), 1, d_model=64), 'd_model=64 changes the width without a projection'),
    (
      Segment((block(),), 1, resample=Merge()),
      'needs a grid of image patches, which embed=tokens does not provide',
    ),
    (Segment((block(),), 1, resample=Merge(1)), 'size=1 is too small'),
    (Segment((block(),), 1, resample=Stride(1)), 'size=1 is too small'),
  ],
  ids=['case=width', 'case=grid', 'case=merge-1', 'case=stride-1'],
)
def test_invalid_resampling_is_an_error(segment, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(Model(Tokens(61), D, (segment,), heads={}))
