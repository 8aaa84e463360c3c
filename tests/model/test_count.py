"""Counts equal the parameter tree, closed forms and published numbers."""

import dataclasses
import math

import jax
from jax.interpreters import partial_eval
import jax.numpy as jnp
import pytest

from tests.parts.jaxprs import product_flops
from tests.zoo.sizes import sizes
from tfm import zoo
from tfm.model import count, transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.act import Tanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.classify import Classify
from tfm.parts.head.lm import Lm
from tfm.parts.mask.window import Window
from tfm.parts.mixer import (
  MLA,
  RGLRU,
  Bottleneck,
  Disentangled,
  Fourier,
  GatedConv,
  GatedDelta,
  Lightning,
  Mamba,
  Mamba2,
  SpanConv,
  Sum,
  Transient,
)
from tfm.parts.mixer.attention import Attention
from tfm.parts.residual.altup import AltUp
from tfm.zoo.layers import layers_of

RECURRENT = (RGLRU, GatedConv, GatedDelta, Lightning, Mamba, Mamba2)


@pytest.mark.parametrize(
  ('name', 'bytes_per_token'),
  [('llama2-70b', 327_680), ('llama3.1-405b', 516_096), ('gpt2', 36_864), ('deepseek-v3', 70_272)],
)
def test_cache_bytes_per_token_match_published_numbers(name, bytes_per_token):
  assert count.cache_bytes_per_token(zoo.get(name), jnp.bfloat16) == bytes_per_token


def _matmul_params(spec):
  """Return the number of matmul parameters, with a tied table as the output projection."""
  flat = jax.tree_util.tree_flatten_with_path(transformer.param_shapes(spec))[0]
  # Grouped projections have `blocks` [L, groups, in, out].
  grouped = [(path, x) for path, x in flat if path[-1].key == 'blocks' and x.ndim == 4]
  matrices = [(path, x) for path, x in flat if path[-1].key == 'kernel'] + grouped
  kernels = sum(leaf.size * _times(spec, path) for path, leaf in matrices)
  return round(kernels) + (spec.vocab * (spec.embed.dim or spec.d_model) if spec.lm.tied else 0)


def _times(spec, path):
  """Return how many times a token uses a parameter: its layers, or an expert's share."""
  keys = [part.key for part in path]
  if keys[-2] in ('distance_q', 'distance_k'):  # applied to a table of distances, not to tokens
    return 0
  stack, keys = (spec.encoder, keys[1:]) if keys[0] == 'encoder' else (spec, keys)
  if keys[0] == 'embed' and keys[1].startswith('conv_'):  # the rate before later strides
    return math.prod(
      conv.stride for conv in stack.embed.convs[int(keys[1].removeprefix('conv_')) + 1 :]
    )
  if not keys[0].startswith('segment_'):
    return 1
  segment = stack.segments[int(keys[0].removeprefix('segment_'))]
  block = segment.pattern[int(keys[1].removeprefix('block_'))]
  chosen = getattr(block, keys[2]).active if 'expert' in keys else 1
  both = 2 if keys[-2] == 'route' else 1  # applied to the input and the output of a block
  return both * chosen * (segment.repeats if segment.shared else 1)


def _without_params(mixer, d_model):
  """Return the FLOPs per token without parameters, such as Fourier transforms."""
  if isinstance(mixer, Fourier):
    return 4 * d_model**2
  if isinstance(mixer, Disentangled):
    return len(mixer.terms) * 2 * mixer.heads * mixer.size(d_model) * 2 * mixer.distances.span
  if isinstance(mixer, SpanConv):  # taps of every channel, and averages of values
    return 2 * mixer.span * (d_model + mixer.heads * mixer.size(d_model))
  if isinstance(mixer, Transient):  # keys and values of a block for every `pool` tokens
    return 4 * d_model * mixer.heads * mixer.size(d_model) / mixer.pool
  if isinstance(mixer, Sum):
    return _without_params(mixer.left, d_model) + _without_params(mixer.right, d_model)
  return _of_state(mixer, d_model)


def _of_state(mixer, d_model):
  """Return the FLOPs per token of a recurrent state, or of a short convolution where counted."""
  if isinstance(mixer, Mamba):
    return 9 * mixer.width * mixer.d_state
  if isinstance(mixer, Mamba2):
    return 6 * mixer.heads * mixer.head_dim * mixer.d_state
  if isinstance(mixer, Lightning):
    return 6 * mixer.heads * mixer.size(d_model) ** 2
  if isinstance(mixer, GatedDelta):
    return 6 * mixer.heads * mixer.head_dim * mixer.key_dim
  if isinstance(mixer, RGLRU):
    gates = 4 * mixer.width**2 // mixer.heads  # their kernels are block-diagonal
    return 2 * mixer.conv * mixer.width + gates
  return 2 * mixer.size * d_model if isinstance(mixer, GatedConv) else 0


def _of_streams(residual, d_model):
  """Return the FLOPs per token of the predictions of a block's streams."""
  return 2 * residual.streams**2 * d_model if isinstance(residual, AltUp) else 0


def _pairs(block, n, d_model):
  """Return the token pairs in a document of n tokens, weighted by their width."""
  mixer = block.mixer.left if isinstance(block.mixer, Sum) else block.mixer
  if isinstance(mixer, RECURRENT):
    return 0
  seen = mixer.mask.pairs(n) + (n * n if block.cross is not None else 0)
  seen += n * (n // mixer.pool) if isinstance(mixer, Transient) else 0
  return seen * _width(mixer, d_model)


def _width(mixer, d_model):
  """Return the total width of all heads, averaged over scores and values."""
  if isinstance(mixer, Fourier):
    return d_model
  if isinstance(mixer, Bottleneck):
    return _width(mixer.attention, mixer.width)
  sizes = (mixer.qk_dim, mixer.v_dim) if isinstance(mixer, MLA) else (mixer.size(d_model),) * 2
  return mixer.heads * sum(sizes) / 2


@pytest.mark.parametrize(('name', 'macs'), [('vit-base-16', 17.58e9), ('deit-tiny', 1.26e9)])
def test_image_flops_are_twice_the_published_macs(name, macs):
  assert count.flops_of_document(zoo.get(name), 1) == pytest.approx(2 * macs, rel=2e-3)


def _has_lm(case):
  return zoo.get(getattr(case, 'values', (case,))[0]).lm is not None


@pytest.mark.parametrize('name', [case for case in sizes() if _has_lm(case)])
def test_flops_are_two_per_parameter_and_four_nh_per_pair(name):
  spec = dataclasses.replace(zoo.tiny(zoo.get(name)), mtp=None)
  n, pairs, other = 10, 0, 0
  for stack in (spec, spec.encoder):
    for segment in stack.segments if stack is not None else ():
      for block in segment.pattern:
        pairs += segment.repeats * _pairs(block, n, spec.d_model)
        other += segment.repeats * _without_params(block.mixer, spec.d_model)
        other += segment.repeats * _of_streams(stack.residual, spec.d_model)
  assert count.flops_of_document(spec, n, n) == n * (2 * _matmul_params(spec) + other) + 4 * pairs


@pytest.mark.parametrize(
  'name', ['gpt2', 'bert-base', 'convbert-base', 'mobilebert', 'gemma3n-e2b']
)
def test_flops_equal_the_matrix_products_of_the_program(name):
  spec, n, extra = zoo.tiny(zoo.get(name)), 10, 0
  for block in layers_of(spec):
    # The program multiplies masked pairs too.
    if not isinstance(block.mixer, RECURRENT):
      extra += 4 * (n * n - block.mixer.mask.pairs(n)) * _width(block.mixer, spec.d_model)
    # The compiler merges the two equal projections of queries.
    if isinstance(block.mixer, SpanConv):
      extra += n * 2 * spec.d_model * block.mixer.heads * block.mixer.size(spec.d_model)
  ids_BT = jax.ShapeDtypeStruct((1, n), jnp.int32)
  logits = lambda params, ids_BT: transformer.apply(spec, params, input_ids=ids_BT)['logits']
  program = jax.make_jaxpr(logits)(transformer.param_shapes(spec), ids_BT).jaxpr
  used, _ = partial_eval.dce_jaxpr(program, [True])
  assert product_flops(used) == count.flops_of_document(spec, n) + extra


@pytest.mark.parametrize(('pick', 'times'), [('each', 10), ('mean', 1)])
def test_classifier_flops_are_counted_per_label(pick, times):
  body = zoo.tiny(zoo.get('bert-base')).with_heads(lm=None)
  spec = body.with_heads(classify=Classify(3, pick, hidden=Tanh()))
  more = count.flops_of_document(spec, 10) - count.flops_of_document(body, 10)
  assert more == times * 2 * (32 * 32 + 32 * 3)
  assert sum(row.repeats * row.flops for row in count.table(spec, 10)) == count.flops_per_token(
    spec, 10
  )


@pytest.mark.parametrize(
  ('name', 'active'),
  [
    ('mixtral-8x7b', 12_879_925_248),
    ('qwen3-30b-a3b', 3_353_032_704),
    ('gpt2', 124_439_808),
    ('deepseek-v3', 37_552_282_624 + 58 * 256),
  ],
)
def test_active_parameters_match_published_numbers(name, active):
  assert count.count_active_params(zoo.get(name)) == active


def test_deepseek_v3_mtp_adds_inactive_parameters():
  spec, with_module = zoo.get('deepseek-v3'), zoo.get('deepseek-v3-mtp')
  assert count.count_params(with_module) - count.count_params(spec) == 11_610_068_224
  assert count.count_active_params(with_module) == count.count_active_params(spec)


def test_gpt2_flops_match_the_closed_form():
  # 2 x (12 layers x 12 D^2 + V D) and 4 N H (n + 1) / 2 a layer.
  expected = 2 * (12 * 12 * 768**2 + 50_257 * 768) + 12 * 4 * 768 * (1024 + 1) / 2
  assert count.flops_per_token(zoo.get('gpt2'), 1024) == expected


def test_window_bounds_the_flops_of_long_documents():
  spec = Model(Tokens(64), 32, (Segment((Block(Attention(4, mask=Window(8))),), 2),))
  short, long = count.flops_per_token(spec, 64), count.flops_per_token(spec, 4096)
  assert short < long < short * 1.02


def test_encoder_decoder_flops_depend_on_both_lengths():
  spec = zoo.tiny(zoo.get('t5-small'))
  assert (
    count.flops_of_document(spec, 8, 0)
    < count.flops_of_document(spec, 8, 4)
    < count.flops_of_document(spec, 8, 8)
  )
  assert count.flops_per_token(spec, 8) == count.flops_of_document(spec, 8, 8) / 8


@pytest.mark.parametrize(
  'name', ['gpt2', 'bert-base', 't5-base', 't5-v1.1-xxl', 'llama3.2-3b', 'vaswani-big']
)
def test_table_rows_add_up(name):
  spec = zoo.get(name)
  rows = count.table(spec, 512)
  assert sum(r.repeats * r.params for r in rows) == count.count_params(spec)
  assert sum(r.repeats * r.flops for r in rows) == pytest.approx(count.flops_per_token(spec, 512))
  assert any(r.parts.get('mixer') == 'attention' and r.repeats > 1 for r in rows)


def test_untying_the_head_adds_one_table():
  spec = zoo.get('gpt2')
  untied = spec.with_heads(lm=Lm(tied=False))
  assert count.count_params(untied) - count.count_params(spec) == spec.vocab * spec.d_model


def test_counting_makes_no_array():
  spec = zoo.get('llama3.1-405b')
  leaves = jax.tree.leaves(transformer.param_shapes(spec))
  assert all(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)
