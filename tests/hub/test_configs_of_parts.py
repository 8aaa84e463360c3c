"""Published configs of encoders and encoder-decoders equal the models of the zoo."""

import pytest

from tfm import zoo
from tfm.core import errors
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.zoo import weights

_BERT = {
  'attention_probs_dropout_prob': 0.1, 'hidden_act': 'gelu', 'hidden_dropout_prob': 0.1,
  'hidden_size': 768,
  'initializer_range': 0.02, 'intermediate_size': 3072, 'layer_norm_eps': 1e-12,
  'max_position_embeddings': 512,
  'num_attention_heads': 12, 'num_hidden_layers': 12, 'type_vocab_size': 2, 'vocab_size': 30522,
}  # fmt: skip
_LARGE = {
  'activation_dropout': 0.0, 'attention_dropout': 0.0, 'd_model': 1024,
  'decoder_attention_heads': 16,
  'decoder_ffn_dim': 4096, 'decoder_layerdrop': 0.0, 'decoder_layers': 16, 'dropout': 0.1,
  'encoder_attention_heads': 16, 'encoder_ffn_dim': 4096, 'encoder_layerdrop': 0.0,
  'encoder_layers': 16,
  'init_std': 0.02, 'is_encoder_decoder': True, 'num_hidden_layers': 16, 'scale_embedding': True,
  'vocab_size': 96103,
}  # fmt: skip
# fmt: off
CONFIGS = {
  'squeezebert': {
    **_BERT, 'embedding_size': 768, 'intermediate_groups': 4, 'k_groups': 4,
    'model_type': 'squeezebert',
    'output_groups': 4, 'pad_token_id': 0, 'post_attention_groups': 1, 'q_groups': 4, 'v_groups': 4,
  },
  'convbert-medium-small': {
    **_BERT, 'conv_kernel_size': 9, 'embedding_size': 128, 'head_ratio': 2, 'hidden_size': 384,
    'intermediate_size': 1536, 'model_type': 'convbert', 'num_attention_heads': 8, 'num_groups': 2,
    'pad_token_id': 0,
  },
  'convbert-base': {
    **_BERT, 'conv_kernel_size': 9, 'embedding_size': 768, 'head_ratio': 2,
    'model_type': 'convbert', 'num_groups': 1,
  },
  'mobilebert': {
    **_BERT, 'classifier_activation': False, 'embedding_size': 128, 'hidden_act': 'relu',
    'hidden_dropout_prob': 0.0,
    'hidden_size': 512, 'intermediate_size': 512, 'intra_bottleneck_size': 128,
    'key_query_shared_bottleneck': True,
    'model_type': 'mobilebert', 'normalization_type': 'no_norm', 'num_attention_heads': 4,
    'num_feedforward_networks': 4, 'num_hidden_layers': 24, 'pad_token_id': 0,
    'trigram_input': True,
    'true_hidden_size': 128, 'use_bottleneck': True, 'use_bottleneck_attention': False,
  },
  'xmod-base': {
    **_BERT, 'adapter_layer_norm': False, 'adapter_reduction_factor': 2,
    'adapter_reuse_layer_norm': True,
    'default_language': None, 'languages': [f'l{i}_XX' for i in range(81)], 'layer_norm_eps': 1e-05,
    'ln_before_adapter': True, 'max_position_embeddings': 514, 'model_type': 'xmod',
    'pad_token_id': 1,
    'pre_norm': False, 'type_vocab_size': 1, 'vocab_size': 250002,
  },
  'bigbird-pegasus-large': {
    **_LARGE, 'activation_function': 'gelu_new', 'attention_type': 'block_sparse', 'block_size': 64,
    'classifier_dropout': 0.0, 'max_position_embeddings': 4096, 'model_type': 'bigbird_pegasus',
    'num_random_blocks': 3, 'use_bias': False,
  },
  'pegasus-x-large': {
    **_LARGE, 'activation_function': 'relu', 'block_size': 512, 'max_position_embeddings': 16384,
    'model_type': 'pegasus_x', 'num_global_tokens': 128, 'stagger_local_blocks': True,
  },
}
# fmt: on


def _bare(spec):
  """Return the normalised text of a spec, without the names of languages."""
  text = repr(flattened(normalised(spec)))
  return text.replace(repr(tuple(f'l{i}_XX' for i in range(81))), repr(tuple(map(str, range(81)))))


@pytest.mark.parametrize('name', CONFIGS)
def test_config_equals_the_model_of_that_name(name):
  assert _bare(weights.published(CONFIGS[name]).spec) == _bare(zoo.get(name))


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    (
      'squeezebert',
      {'embedding_size': 128},
      'embedding_size is 128, and hidden_size is 768. Expected the same size',
    ),
    (
      'squeezebert',
      {'q_groups': 5},
      'q_groups=5 does not divide 768 and 768. Expected a common divisor',
    ),
    ('squeezebert', {'output_groups': 7}, 'down_groups=7 does not divide 768 and 3072'),
    ('convbert-base', {'hidden_size': 774}, 'hidden_size is 774, .* Expected a multiple of 12'),
    ('convbert-base', {'conv_kernel_size': 8}, 'span=8 has no middle. Expected an odd number'),
    (
      'mobilebert',
      {'key_query_shared_bottleneck': False},
      'the query projection takes 128 inputs, and hidden_size is 512. Expected',
    ),
    (
      'mobilebert',
      {'embedding_size': 512},
      'embedding_size is 512. Expected less than hidden_size, 512',
    ),
    ('mobilebert', {'normalization_type': 'layer_norm'}, "normalization_type is 'layer_norm'"),
    ('mobilebert', {'trigram_input': False}, 'trigram_input is False'),
    ('mobilebert', {'use_bottleneck': False}, 'use_bottleneck is False'),
    (
      'xmod-base',
      {'default_language': 'l1_YY'},
      "default_language: unknown language 'l1_YY'. Did you mean",
    ),
    (
      'bigbird-pegasus-large',
      {'attention_type': 'sparse'},
      "attention_type: unknown value 'sparse'",
    ),
    (
      'pegasus-x-large',
      {'block_size': 5},
      'block_size is 5, and stagger_local_blocks is true. Expected an even',
    ),
  ],
)
def test_unsupported_settings_raise(name, changes, message):
  with pytest.raises(errors.UserError, match=message):
    weights.published({**CONFIGS[name], **changes})
