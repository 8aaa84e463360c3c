"""Unsupported options and older field names of mixtures and hybrid models."""

import dataclasses
import math

import pytest

from tfm.core import config, errors
from tfm.hub import class_of
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Moe
from tfm.parts.mask import Causal, Chunks
from tfm.parts.mixer import Attention, Mamba2
from tfm.parts.norm import RMSNorm
from tfm.parts.relative import Temperature
from tfm.parts.router import SparseMixer
from tfm.zoo import weights

_SIZES = {
  'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 48,
  'vocab_size': 61, 'max_position_embeddings': 64,
}  # fmt: skip
_LONGROPE = {
  'type': 'longrope', 'short_factor': [1.0] * 4, 'long_factor': [2.0] * 4, 'short_mscale': 1.1,
  'long_mscale': 1.1, 'original_max_position_embeddings': 16,
}  # fmt: skip


def read(kind, **fields):
  return weights.published({**_SIZES, 'model_type': kind, **fields}).spec


@pytest.mark.parametrize(
  ('kind', 'fields', 'message'),
  [
    ('phimoe', {
      'rope_scaling': {**_LONGROPE, 'long_mscale': 1.2},
    }, r'short_mscale is 1\.1 and long_mscale 1\.2'),
    ('phimoe', {'num_experts_per_tok': 3}, r'num_experts_per_tok is 3'),
    ('qwen3_next', {
      'layer_types': ['linear_attention', 'full'],
    }, r"layer_types: unknown value 'full'"),
    ('qwen3_next', {
      'layer_types': ['full_attention'],
    }, r'layer_types has 1 layers\. Expected num_hidden_layers \(2\)'),
    ('qwen3_5_text', {'attn_output_gate': False}, r'attn_output_gate is False'),
    ('bamba', {'mamba_n_heads': 4, 'mamba_d_head': 15},
     r'mamba_n_heads \(4\) x mamba_d_head \(15\) is 60\. Expected 64'),
    ('granitemoehybrid', {'layer_types': ['mamba', 'conv'], 'mamba_n_heads': 4},
     r"unknown value 'conv'"),
    ('granitemoehybrid', {'layer_types': ['mamba'], 'mamba_n_heads': 4},
     r'layer_types has 1 layers\. Expected'),
    ('llama4_text', {'no_rope_layers': [1]},
     r'no_rope_layers has 1 layers\. Expected num_hidden_layers \(2\)'),
    ('llama4_text', {'layer_types': ['chunked', 'full_attention']},
     r"layer_types: unknown value 'chunked'"),
    ('llama4_text', {'attention_chunk_size': None},
     'attention_chunk_size is null, and layer_types'),
    ('recurrent_gemma', {'block_types': ['recurrent', 'attend']},
     r"block_types: unknown value 'attend'"),
    ('lfm2', {'layer_types': ['conv', 'full']}, r"layer_types: unknown value 'full'"),
    (
      'lfm2', {'layer_types': ['conv']},
      r'layer_types has 1 layers\. Expected num_hidden_layers \(2\)',
    ),
    ('falcon_h1', {
      'mamba_d_ssm': 64, 'mamba_n_heads': 4, 'projectors_bias': True,
    }, r'projectors_bias is True and'),
    (
      'falcon_h1',
      {
        'mamba_d_ssm': 64, 'mamba_n_heads': 4, 'projectors_bias': True, 'mamba_proj_bias': True,
        'ssm_in_multiplier': 2.0,
      },
      r'ssm_in_multiplier is 2\.0, and mamba_proj_bias is true',
    ),
    ('hunyuan_v1_moe', {'moe_topk': 2, 'num_experts': 4, 'num_shared_expert': [1, 2]},
     r'num_shared_expert is 2'),
    ('hunyuan_v1_moe', {'moe_topk': 2, 'num_experts': 4, 'use_cla': True}, r'use_cla is True'),
    ('mamba', {'rms_norm': False}, r'rms_norm is False'),
    ('glm4_moe', {'scoring_func': 'softmax'}, r"scoring_func: unknown value 'softmax'"),
    ('ernie4_5_moe', {'moe_gate': 'hash'}, r"moe_gate is 'hash'"),
    ('mamba2', {'num_heads': 4, 'head_dim': 16, 'n_groups': 1, 'expand': 3}, r'expand is 3'),
  ],
)  # fmt: skip
def test_unsupported_computations_raise_errors(kind, fields, message):
  with pytest.raises(errors.UserError, match=message):
    read(kind, **fields)


@pytest.mark.parametrize('infinity', [math.inf, {'__float__': 'Infinity'}])
def test_unbounded_time_step_has_two_spellings(infinity):
  values = {
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'vocab_size': 61,
    'num_heads': 4,
    'head_dim': 16,
    'n_groups': 1,
  }
  spec = weights.published(
    {**values, 'model_type': 'mamba2', 'time_step_limit': [0.0, infinity]}
  ).spec
  assert spec.segments[0].pattern[0].mixer.limits == (0.0, math.inf)


def test_older_granite_4_layer_names_load():
  spec = read(
    'granitemoehybrid',
    layer_types=['mamba', 'attention'],
    mamba_n_heads=4,
    position_embedding_type='nope',
  )
  mixers = [type(block.mixer) for segment in spec.segments for block in segment.pattern]
  assert mixers == [Mamba2, Attention]


def test_older_lfm2_size_names_load():
  sizes = {'num_key_value_heads': 4, 'block_ff_dim': 96, 'block_multiple_of': 8}
  spec = read('lfm2', full_attn_idxs=[1], tie_embedding=False, **sizes)
  assert spec.segments[0].pattern[0].ffn.d_ff == 64
  assert not spec.lm.tied


def test_one_factor_of_longrope_scales_cos_and_sin():
  spec = read('phimoe', num_key_value_heads=4, rope_scaling=_LONGROPE)
  assert spec.segments[0].pattern[0].mixer.relative.scaling.attention == 1.1
  assert class_of(spec)[0]['rope_parameters']['long_mscale'] == 1.1


def test_irregular_jamba_experts_are_not_exported():
  places = {'attn_layer_period': 3, 'attn_layer_offset': 1}
  spec = read('jamba', num_key_value_heads=4, num_hidden_layers=6, num_experts=4, **places)
  first, *rest = [
    block for segment in spec.segments for _ in range(segment.repeats) for block in segment.pattern
  ]
  changed_block = dataclasses.replace(first, ffn=rest[0].ffn)
  changed = dataclasses.replace(
    spec, segments=tuple(Segment((block,)) for block in (changed_block, *rest))
  )
  with pytest.raises(
    errors.UserError, match=r'the expert layers are \[0, 1, 3, 5\]\. Expected a constant distance'
  ):
    weights.TABLE['jamba'].write(changed)


@pytest.mark.parametrize(
  ('block', 'message'),
  [
    (
      Block(ffn=Moe(1, SparseMixer(), Glu(8))),
      r'sparse_mixer chooses 2 experts, and there are 1\. Expected at least 2',
    ),
    (
      Block(ffn=Moe(4, SparseMixer(jitter=-1.0), Glu(8))),
      r'jitter=-1\.0 is negative\. Expected at least 0',
    ),
    (Block(ffn=Moe(4, scaled='both')), r"scaled: is both. Expected 'output' or 'input'"),
    (
      Block(Attention(4, mask=Causal() & Chunks(0))),
      r'size=0 is not a chunk size\. Expected at least 1',
    ),
    (
      Block(Attention(4, relative=Temperature(0))),
      r'every=0 is not a number of positions\. Expected at least 1',
    ),
    (
      Block(norm=RMSNorm(scale=False, one_plus=True)),
      r'one_plus and scale_first need a scale, and scale=false',
    ),
  ],
)
def test_fields_out_of_range_raise_errors(block, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(Model(Tokens(32), 32, (Segment((block,)),)))


def test_extra_fields_of_dots_are_ignored():
  sizes = {
    'num_key_value_heads': 4,
    'n_routed_experts': 4,
    'num_experts_per_tok': 2,
    'moe_intermediate_size': 24,
  }
  extra = {
    'scoring_func': 'noaux_tc',
    'topk_method': 'noaux_tc',
    'moe_layer_freq': 1,
    'ep_size': 1,
    'seq_aux': True,
  }
  assert read('dots1', **sizes, **extra) == read('dots1', **sizes)
