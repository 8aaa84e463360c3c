"""Published configs of encoder-decoders match the models of the zoo."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

import tfm
from tfm import hub, zoo
from tfm.core import errors
from tfm.core.config import validate
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.hub.tensors import SAFE
from tfm.model.transformer import init
from tfm.zoo import weights

_T5 = {
  'd_kv': 64, 'decoder_start_token_id': 0, 'dropout_rate': 0.1, 'eos_token_id': 1,
  'initializer_factor': 1.0, 'is_encoder_decoder': True, 'layer_norm_epsilon': 1e-06,
  'output_past': True, 'pad_token_id': 0, 'relative_attention_num_buckets': 32,
}  # fmt: skip
_SMALL = {
  **_T5,
  'd_ff': 1024,
  'd_model': 512,
  'num_heads': 6,
  'num_layers': 8,
  'num_decoder_layers': 8,
}
_BASE = {
  **_T5,
  'd_ff': 2048,
  'd_model': 768,
  'num_heads': 12,
  'num_layers': 12,
  'num_decoder_layers': 12,
}
_BART = {
  'activation_dropout': 0.0, 'add_bias_logits': False, 'attention_dropout': 0.0, 'bos_token_id': 0,
  'classifier_dropout': 0.0, 'decoder_layerdrop': 0.0, 'dropout': 0.1, 'encoder_layerdrop': 0.0,
  'eos_token_id': 2, 'extra_pos_embeddings': 2, 'init_std': 0.02, 'is_encoder_decoder': True,
  'output_past': False, 'pad_token_id': 1,
  'id2label': {'0': 'LABEL_0', '1': 'LABEL_1', '2': 'LABEL_2'}, '_num_labels': 3,
}  # fmt: skip


def _sizes(layers, d, heads, d_ff, act, positions):
  stacks = {f'{stack}_{name}': value for stack in ('encoder', 'decoder') for name, value in (
    ('layers', layers), ('attention_heads', heads), ('ffn_dim', d_ff),
  )}  # fmt: skip
  return {
    **_BART,
    **stacks,
    'd_model': d,
    'activation_function': act,
    'max_position_embeddings': positions,
  }


_PRE = {'normalize_before': True, 'add_final_layer_norm': True}
_LONG = {
  **_BASE, 'architectures': ['LongT5ForConditionalGeneration'], 'feed_forward_proj': 'gated-gelu',
  'global_block_size': 16, 'local_radius': 127, 'model_type': 'longt5', 'n_positions': 4096,
  'tie_word_embeddings': False, 'vocab_size': 32128,
}  # fmt: skip
# fmt: off
CONFIGS = {
  't5-small': {
    **_T5, 'architectures': ['T5WithLMHeadModel'], 'd_ff': 2048, 'd_model': 512, 'model_type': 't5',
    'n_positions': 512, 'num_heads': 8, 'num_layers': 6, 'vocab_size': 32128,
  },
  't5-v1.1-small': {
    **_SMALL, 'architectures': ['T5ForConditionalGeneration'], 'feed_forward_proj': 'gated-gelu',
    'model_type': 't5', 'tie_word_embeddings': False, 'vocab_size': 32128,
  },
  'mt5-small': {
    **_SMALL, 'architectures': ['MT5ForConditionalGeneration'], 'feed_forward_proj': 'gated-gelu',
    'model_type': 'mt5', 'tie_word_embeddings': False, 'tokenizer_class': 'T5Tokenizer',
    'vocab_size': 250112,
  },
  'umt5-base': {
    **_BASE, 'architectures': ['UMT5ForConditionalGeneration'], 'dense_act_fn': 'gelu_new',
    'is_gated_act': True, 'feed_forward_proj': 'gated-gelu', 'model_type': 'umt5',
    'relative_attention_max_distance': 128, 'tie_word_embeddings': False, 'vocab_size': 256384,
    'scalable_attention': True,
  },
  'longt5-local-base': {**_LONG, 'encoder_attention_type': 'local'},
  'longt5-tglobal-base': {**_LONG, 'encoder_attention_type': 'transient-global'},
  'bart-large': {
    **_sizes(12, 1024, 16, 4096, 'gelu', 1024), 'architectures': ['BartForConditionalGeneration'],
    'add_final_layer_norm': False, 'classif_dropout': 0.1, 'decoder_start_token_id': 2,
    'model_type': 'bart', 'normalize_before': False, 'normalize_embedding': True,
    'num_hidden_layers': 12, 'scale_embedding': False, 'static_position_embeddings': False,
    'vocab_size': 50265, 'forced_eos_token_id': 2,
  },
  'mbart-large': {
    **_sizes(12, 1024, 16, 4096, 'gelu', 1024), **_PRE,
    'architectures': ['MBartForConditionalGeneration'], 'model_type': 'mbart',
    'normalize_embedding': True, 'scale_embedding': True, 'vocab_size': 250027,
    'static_position_embeddings': False, 'num_beams': 5, 'max_length': 1024,
  },
  'pegasus-large': {
    **_sizes(16, 1024, 16, 4096, 'relu', 1024), **_PRE,
    'architectures': ['PegasusForConditionalGeneration'], 'model_type': 'pegasus',
    'normalize_embedding': False, 'scale_embedding': True, 'vocab_size': 96103,
    'static_position_embeddings': True, 'length_penalty': 0.8,
  },
  'blenderbot-3b': {
    **_sizes(2, 2560, 32, 10240, 'gelu', 128), **_PRE,
    'architectures': ['BlenderbotForConditionalGeneration'], 'decoder_layers': 24,
    'do_blenderbot_90_layernorm': True, 'encoder_no_repeat_ngram_size': 3,
    'layernorm_variant': 'prelayernorm', 'model_type': 'blenderbot', 'normalize_embedding': False,
    'scale_embedding': True, 'static_position_embeddings': False, 'vocab_size': 8008,
  },
  'opus-mt-en-de': {
    **_sizes(6, 512, 8, 2048, 'swish', 512), 'architectures': ['MarianMTModel'],
    'add_final_layer_norm': False, 'bad_words_ids': [[58100]], 'decoder_start_token_id': 58100,
    'model_type': 'marian', 'normalize_before': False, 'normalize_embedding': False,
    'pad_token_id': 58100, 'scale_embedding': True, 'static_position_embeddings': True,
    'vocab_size': 58101,
  },
  'm2m100-418m': {
    **_sizes(12, 1024, 16, 4096, 'relu', 1024), 'architectures': ['M2M100ForConditionalGeneration'],
    'attention_dropout': 0.1, 'decoder_layerdrop': 0.05, 'encoder_layerdrop': 0.05,
    'model_type': 'm2m_100', 'num_hidden_layers': 12, 'scale_embedding': True, 'vocab_size': 128112,
    'max_length': 200,
  },
}
# fmt: on


@pytest.mark.parametrize('name', CONFIGS)
def test_published_config_matches_the_zoo(name):
  found = weights.published(CONFIGS[name])
  assert flattened(normalised(found.spec)) == flattened(normalised(zoo.get(name)))


def test_encoder_of_another_width_has_a_token_table():
  wide = zoo.tiny(zoo.get('t5gemma-9b-2b'))
  shared = dataclasses.replace(
    wide,
    towers={
      **wide.towers,
      'encoder': dataclasses.replace(
        wide.encoder, embed=dataclasses.replace(wide.encoder.embed, vocab=None), d_model=40
      ),
    },
  )
  with pytest.raises(
    errors.UserError,
    match=r"encoder: has another d_model than the decoder, but shares the decoder's",
  ):
    validate(shared)


def test_unknown_encoder_attention_raises_an_error():
  config = {**CONFIGS['longt5-local-base'], 'encoder_attention_type': 'global'}
  with pytest.raises(errors.UserError, match=r"encoder_attention_type: unknown value 'global'"):
    weights.published(config)


def test_wrong_sinusoid_tables_raise_errors(tmp_path):
  spec = zoo.tiny(zoo.get('opus-mt-en-de'))
  hub.export_hf(spec, init(spec, jax.random.key(0)), tmp_path / 'marian')
  arrays = safetensors.numpy.load_file(tmp_path / 'marian' / SAFE)
  name = 'model.encoder.embed_positions.weight'
  tfm.load(tmp_path / 'marian')
  for wrong in (arrays[name] + 1, np.zeros((3, 3), np.float32)):
    safetensors.numpy.save_file({**arrays, name: wrong}, tmp_path / 'marian' / SAFE)
    with pytest.raises(
      errors.UserError,
      match=r'embed_positions\.weight \[.*\] differs from the fixed table \[64, 32\]',
    ):
      tfm.load(tmp_path / 'marian')
