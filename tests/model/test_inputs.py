"""Errors for inputs and parts that do not fit; tests/contracts covers packing and padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import zoo
from tfm.core import config, errors
from tfm.model import transformer
from tfm.model.cache import init_cache
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.parts.relative import T5Bias

GPT2, T5, BERT = (zoo.tiny(zoo.get(name)) for name in ('gpt2', 't5-small', 'bert-base'))
IDS = jnp.ones((2, 5), jnp.int32)


@pytest.mark.parametrize(
  ('spec', 'inputs', 'message'),
  [
    (GPT2, {'input_idz': IDS}, r"unknown input 'input_idz'\. Did you mean 'input_ids'"),
    (
      GPT2,
      {'input_ids': IDS, 'attention_mask': IDS, 'segment_ids': IDS},
      'and segment_ids are both given',
    ),
    (
      GPT2,
      {'input_ids': IDS, 'decoder_input_ids': IDS},
      'decoder_input_ids is given, but the model has no encoder. Expected input_ids',
    ),
    (GPT2, {'attention_mask': IDS}, 'input_ids is missing'),
    (GPT2, {'input_ids': IDS[0]}, r'input_ids has shape \(5,\)\. Expected \[B, T\]'),
    (
      GPT2,
      {'input_ids': IDS, 'position_ids': IDS[:, :3]},
      r'position_ids has shape \(2, 3\)\. Expected \(2, 5\), as input_ids',
    ),
    (
      GPT2,
      {'input_ids': jnp.ones((1, 65), jnp.int32)},
      'input_ids has 65 tokens, the position table has 64 entries',
    ),
    (GPT2, {'input_ids': IDS, 'token_type_ids': IDS}, 'the model has no token types'),
    (T5, {'input_ids': IDS}, 'decoder_input_ids is missing'),
    (T5, {'decoder_input_ids': IDS}, 'input_ids is missing'),
    (BERT, {'input_ids': jnp.ones((1, 65), jnp.int32)}, 'Expected at most 64'),
  ],
)
def test_invalid_inputs_are_errors(spec, inputs, message):
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(
      lambda p, x: transformer.apply(spec, p, **x), transformer.param_shapes(spec), inputs
    )


def test_cache_longer_than_the_position_table_is_an_error():
  with pytest.raises(
    errors.UserError, match=r'slots=65 exceeds the position table\. Expected at most 64'
  ):
    init_cache(GPT2, 1, 65)


_ENCODER = Segment((Block(Attention(4, mask=Mask())),), 1)
_DECODER = (Segment((Block(Attention(4), cross=CrossAttention(4)),), 1),)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (Model(Tokens(0), 32), 'embed: vocab=0 is not a size'),
    (Model(Tokens(64), 32, (Segment((), 1),)), 'repeats=1 of 0 blocks give no layer'),
    (
      Model(Tokens(64), 32, (Segment((Block(Attention(4), dropout=1.0),), 1),)),
      r'dropout=1\.0 is not a probability',
    ),
    (
      Model(
        Tokens(64),
        32,
        (Segment((Block(Attention(4)),), 1),),
        towers={'encoder': Tower(segments=(_ENCODER,))},
      ),
      'no block has cross-attention to it',
    ),
    (
      Model(Tokens(64), 32, (Segment((Block(Attention(4), cross=CrossAttention(4)),), 1),)),
      'there is no tower encoder',
    ),
    (
      Model(
        Tokens(64), 32, _DECODER, towers={'encoder': Tower(embed=Tokens(0), segments=(_ENCODER,))}
      ),
      r'towers\.encoder\.embed: vocab=0 is not a size',
    ),
    (
      Model(
        Tokens(64),
        32,
        _DECODER,
        towers={'encoder': Tower(embed=Tokens(None, dim=8), segments=(_ENCODER,))},
      ),
      r'towers\.encoder\.embed: dim=8 differs from the shared table \(embed\.dim=None\)',
    ),
    (
      Model(
        Tokens(64),
        32,
        (Segment((Block(Attention(4)), Block(Attention(2))), 1),),
        shared_relative=T5Bias(),
      ),
      r'shared_relative is used by layers with \[2, 4\] heads',
    ),
  ],
)
def test_invalid_combinations_of_parts_are_errors(spec, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(spec)


def test_masks_determine_the_topology():
  assert GPT2.causal
  assert GPT2.max_positions == 64
  assert not BERT.causal
  assert T5.causal
  assert T5.max_positions is None
  assert not GPT2.reads_prefix


def test_logits_to_keep_limits_the_logits():
  out = jax.eval_shape(
    lambda p, x: transformer.apply(GPT2, p, input_ids=x, logits_to_keep=1),
    transformer.param_shapes(GPT2),
    IDS,
  )
  assert out['logits'].shape == (2, 1, 64)
  none = jax.eval_shape(
    lambda p, x: transformer.apply(GPT2, p, input_ids=x, logits_to_keep=0),
    transformer.param_shapes(GPT2),
    IDS,
  )
  assert 'logits' not in none


def test_dropout_needs_a_key_and_is_a_function_of_it():
  spec = dataclasses.replace(GPT2, segments=(Segment((Block(Attention(4), dropout=0.5),), 2),))
  params = jax.jit(transformer.init, static_argnums=0)(spec, jax.random.key(0))
  run = jax.jit(lambda key: transformer.apply(spec, params, input_ids=IDS, key=key)['logits'])
  np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
  assert np.abs(np.asarray(run(jax.random.key(1)) - run(jax.random.key(2)))).max() > 1e-4
