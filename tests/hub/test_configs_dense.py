"""Published configs of dense decoders match the models of the zoo."""

import pytest

from tfm import zoo
from tfm.hub.multimodal import text_config
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.zoo import weights

_LOCAL, _ALL = 'sliding_attention', 'full_attention'
_ALIKE = {
  'bos_token_id': 1, 'eos_token_id': 2, 'initializer_range': 0.02, 'torch_dtype': 'bfloat16',
  'transformers_version': '4.56.0', 'use_cache': True,
}  # fmt: skip
_LLAMA = {
  'attention_bias': False, 'attention_dropout': 0.0, 'hidden_act': 'silu', 'mlp_bias': False,
  'model_type': 'llama',
  'pretraining_tp': 1, 'rms_norm_eps': 1e-05, 'architectures': ['LlamaForCausalLM'],
}  # fmt: skip
_LLAMA3 = {
  'factor': 8.0, 'high_freq_factor': 4.0, 'low_freq_factor': 1.0,
  'original_max_position_embeddings': 8192, 'rope_type': 'llama3',
}  # fmt: skip
_SMOL = {
  **_LLAMA, 'is_llama_config': True, 'max_position_embeddings': 8192, 'rope_interleaved': False,
  'rope_scaling': None, 'tie_word_embeddings': True, 'vocab_size': 49152,
}  # fmt: skip
_MINISTRAL3 = {
  'beta_fast': 32.0, 'beta_slow': 1.0, 'factor': 16.0, 'llama_4_scaling_beta': 0.1, 'mscale': 1.0,
  'mscale_all_dim': 1.0, 'original_max_position_embeddings': 16384, 'rope_theta': 1000000.0,
  'rope_type': 'yarn', 'type': 'yarn',
}  # fmt: skip

# fmt: off
CONFIGS = {
  'llama3.1-8b': {
    **_LLAMA, 'hidden_size': 4096, 'intermediate_size': 14336, 'max_position_embeddings': 131072,
    'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8,
    'rope_scaling': _LLAMA3, 'rope_theta': 500000.0, 'tie_word_embeddings': False,
    'vocab_size': 128256, 'eos_token_id': [128001, 128008, 128009],
  },
  'llama3.1-70b': {
    **_LLAMA, 'hidden_size': 8192, 'intermediate_size': 28672, 'max_position_embeddings': 131072,
    'num_attention_heads': 64, 'num_hidden_layers': 80, 'num_key_value_heads': 8,
    'rope_scaling': _LLAMA3, 'rope_theta': 500000.0, 'tie_word_embeddings': False,
    'vocab_size': 128256,
  },
  'smollm2-135m': {
    **_SMOL, 'hidden_size': 576, 'intermediate_size': 1536, 'num_attention_heads': 9,
    'num_hidden_layers': 30, 'num_key_value_heads': 3, 'rope_theta': 100000,
  },
  'mistral-small-3-24b': {
    'architectures': ['MistralForCausalLM'], 'attention_dropout': 0.0, 'head_dim': 128,
    'hidden_act': 'silu', 'hidden_size': 5120, 'intermediate_size': 32768,
    'max_position_embeddings': 32768, 'model_type': 'mistral', 'num_attention_heads': 32,
    'num_hidden_layers': 40, 'num_key_value_heads': 8, 'rms_norm_eps': 1e-05,
    'rope_theta': 100000000.0, 'sliding_window': None, 'tie_word_embeddings': False,
    'vocab_size': 131072,
  },
  'mistral-small-3.1-24b': {
    'architectures': ['Mistral3ForConditionalGeneration'], 'image_token_index': 10,
    'model_type': 'mistral3', 'multimodal_projector_bias': False, 'projector_hidden_act': 'gelu',
    'spatial_merge_size': 2, 'vision_feature_layer': -1,
    'vision_config': {'hidden_size': 1024, 'model_type': 'pixtral', 'patch_size': 14},
    'text_config': {
      'attention_dropout': 0.0, 'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': 5120,
      'initializer_range': 0.02, 'intermediate_size': 32768, 'max_position_embeddings': 131072,
      'model_type': 'mistral', 'num_attention_heads': 32, 'num_hidden_layers': 40,
      'num_key_value_heads': 8, 'rms_norm_eps': 1e-05, 'rope_theta': 1000000000.0,
      'sliding_window': None, 'use_cache': True, 'vocab_size': 131072,
    },
  },
  'ministral3-8b': {
    'architectures': ['Mistral3ForConditionalGeneration'], 'dtype': 'bfloat16',
    'image_token_index': 10, 'model_type': 'mistral3', 'multimodal_projector_bias': False,
    'projector_hidden_act': 'gelu', 'spatial_merge_size': 2, 'tie_word_embeddings': False,
    'vision_feature_layer': -1, 'vision_config': {},
    'text_config': {
      'attention_dropout': 0.0, 'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': 4096,
      'intermediate_size': 14336, 'max_position_embeddings': 262144, 'model_type': 'ministral3',
      'num_attention_heads': 32, 'num_hidden_layers': 34, 'num_key_value_heads': 8,
      'rms_norm_eps': 1e-05, 'rope_parameters': _MINISTRAL3, 'sliding_window': None,
      'tie_word_embeddings': False, 'vocab_size': 131072,
    },
  },
  'gemma3-27b': {
    'architectures': ['Gemma3ForConditionalGeneration'], 'boi_token_index': 255999,
    'eoi_token_index': 256000, 'eos_token_id': [1, 106], 'image_token_index': 262144,
    'mm_tokens_per_image': 256, 'model_type': 'gemma3',
    'vision_config': {
      'hidden_size': 1152, 'model_type': 'siglip_vision_model', 'vision_use_head': False,
    },
    'text_config': {
      'head_dim': 128, 'hidden_size': 5376, 'intermediate_size': 21504, 'model_type': 'gemma3_text',
      'num_attention_heads': 32, 'num_hidden_layers': 62, 'num_key_value_heads': 16,
      'query_pre_attn_scalar': 168, 'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
      'sliding_window': 1024,
    },
  },
  'glm-9b': {
    'architectures': ['GlmForCausalLM'], 'attention_bias': True, 'attention_dropout': 0.0,
    'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': 4096, 'intermediate_size': 13696,
    'max_position_embeddings': 131072, 'model_type': 'glm', 'num_attention_heads': 32,
    'num_hidden_layers': 40, 'num_key_value_heads': 2, 'pad_token_id': 151329,
    'partial_rotary_factor': 0.5, 'rms_norm_eps': 1.5625e-07, 'rope_theta': 10000.0,
    'tie_word_embeddings': False, 'vocab_size': 151552,
  },
  'olmo3-7b': {
    'architectures': ['Olmo3ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'hidden_act': 'silu', 'hidden_size': 4096, 'intermediate_size': 11008,
    'layer_types': ([_LOCAL] * 3 + [_ALL]) * 8, 'max_position_embeddings': 65536,
    'model_type': 'olmo3', 'num_attention_heads': 32, 'num_hidden_layers': 32,
    'num_key_value_heads': 32, 'pad_token_id': 100277, 'rms_norm_eps': 1e-06,
    'rope_scaling': {
      'attention_factor': 1.2079441541679836, 'beta_fast': 32.0, 'beta_slow': 1.0, 'factor': 8.0,
      'original_max_position_embeddings': 8192, 'rope_type': 'yarn',
    },
    'rope_theta': 500000, 'sliding_window': 4096, 'tie_word_embeddings': False,
    'vocab_size': 100278,
  },
  'apertus-8b': {
    'architectures': ['ApertusForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'hidden_act': 'xielu', 'hidden_dropout': 0.0, 'hidden_size': 4096, 'intermediate_size': 21504,
    'max_position_embeddings': 65536, 'mlp_bias': False, 'model_type': 'apertus',
    'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8,
    'post_norm': False, 'qk_norm': True, 'rms_norm_eps': 1e-05, 'rope_scaling': _LLAMA3,
    'rope_theta': 12000000, 'tie_word_embeddings': False, 'vocab_size': 131072,
  },
  'seed-oss-36b': {
    'architectures': ['SeedOssForCausalLM'], 'attention_bias': True, 'attention_dropout': 0.1,
    'attention_out_bias': False, 'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': 5120,
    'intermediate_size': 27648, 'max_position_embeddings': 524288, 'mlp_bias': False,
    'model_type': 'seed_oss', 'num_attention_heads': 80, 'num_hidden_layers': 64,
    'num_key_value_heads': 8, 'pad_token_id': 1, 'residual_dropout': 0.1, 'rms_norm_eps': 1e-06,
    'rope_scaling': {'rope_type': 'default'}, 'rope_theta': 10000000.0,
    'tie_word_embeddings': False, 'vocab_size': 155136,
  },
  'hunyuan-7b': {
    'architectures': ['HunYuanDenseV1ForCausalLM'], 'attention_bias': False,
    'attention_dropout': 0.0, 'attention_head_dim': 128, 'head_dim': 128, 'hidden_act': 'silu',
    'hidden_size': 4096, 'intermediate_size': 14336, 'max_position_embeddings': 32768,
    'mlp_bias': False, 'model_type': 'hunyuan_v1_dense', 'norm_type': 'rms',
    'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8,
    'pad_token_id': 127961, 'rms_norm_eps': 1e-05,
    'rope_scaling': {
      'alpha': 1000.0, 'beta_fast': 32, 'beta_slow': 1, 'factor': 1.0, 'mscale': 1.0,
      'mscale_all_dim': 1.0, 'type': 'dynamic',
    },
    'rope_theta': 10000.0, 'tie_word_embeddings': True, 'use_cla': False, 'use_qk_norm': True,
    'use_rotary_pos_emb': True, 'vocab_size': 128167,
  },
  'persimmon-8b': {
    'architectures': ['PersimmonForCausalLM'], 'attention_dropout': 0.0, 'hidden_act': 'relu2',
    'hidden_dropout': 0.0, 'hidden_size': 4096, 'intermediate_size': 16384, 'layer_norm_eps': 1e-05,
    'max_position_embeddings': 16384, 'model_type': 'persimmon', 'num_attention_heads': 64,
    'num_hidden_layers': 36, 'num_key_value_heads': 64, 'partial_rotary_factor': 0.5,
    'qk_layernorm': True, 'rope_scaling': None, 'rope_theta': 25000.0, 'tie_word_embeddings': False,
    'vocab_size': 262144,
  },
  'xglm-564m': {
    'activation_dropout': 0, 'activation_function': 'gelu', 'architectures': ['XGLMForCausalLM'],
    'attention_dropout': 0.1, 'attention_heads': 16, 'd_model': 1024, 'decoder_start_token_id': 2,
    'dropout': 0.1, 'ffn_dim': 4096, 'init_std': 0.02, 'layerdrop': 0.0,
    'max_position_embeddings': 2048, 'model_type': 'xglm', 'num_layers': 24, 'pad_token_id': 1,
    'scale_embedding': True, 'vocab_size': 256008,
  },
  'biogpt': {
    'activation_dropout': 0.0, 'architectures': ['BioGptForCausalLM'],
    'attention_probs_dropout_prob': 0.1, 'hidden_act': 'gelu', 'hidden_dropout_prob': 0.1,
    'hidden_size': 1024, 'intermediate_size': 4096, 'layer_norm_eps': 1e-12, 'layerdrop': 0.0,
    'max_position_embeddings': 1024, 'model_type': 'biogpt', 'num_attention_heads': 16,
    'num_hidden_layers': 24, 'pad_token_id': 1, 'scale_embedding': True, 'vocab_size': 42384,
  },
  'ctrl': {
    'architectures': ['CTRLLMHeadModel'], 'attn_pdrop': 0.1, 'dff': 8192, 'embd_pdrop': 0.1,
    'layer_norm_epsilon': 1e-06, 'model_type': 'ctrl', 'n_ctx': 512, 'n_embd': 1280, 'n_head': 16,
    'n_layer': 48, 'n_positions': 256, 'resid_pdrop': 0.1, 'vocab_size': 246534,
  },
  'gpt-sw3-1.3b': {
    'activation_function': 'gelu_new', 'architectures': ['GPT2LMHeadModel'], 'attn_pdrop': 0.1,
    'embd_pdrop': 0.1, 'layer_norm_epsilon': 1e-05, 'model_type': 'gpt2', 'n_embd': 2048,
    'n_head': 32, 'n_inner': None, 'n_layer': 24, 'n_positions': 2048,
    'reorder_and_upcast_attn': False, 'resid_pdrop': 0.1, 'scale_attn_by_inverse_layer_idx': False,
    'scale_attn_weights': True, 'summary_activation': None, 'summary_first_dropout': 0.1,
    'summary_proj_to_labels': True, 'summary_type': 'cls_index', 'summary_use_proj': True,
    'tokenizer_class': 'GPTSw3Tokenizer', 'vocab_size': 64000,
  },
  'ettin-decoder-150m': {
    'architectures': ['ModernBertDecoderForCausalLM'], 'attention_bias': False,
    'attention_dropout': 0.0, 'classifier_activation': 'gelu', 'classifier_bias': False,
    'classifier_dropout': 0.0, 'decoder_bias': True, 'embedding_dropout': 0.0,
    'global_attn_every_n_layers': 3, 'global_rope_theta': 160000.0, 'hidden_activation': 'gelu',
    'hidden_size': 768, 'intermediate_size': 1152, 'local_attention': 128,
    'local_rope_theta': 10000.0, 'max_position_embeddings': 8192, 'mlp_bias': False,
    'mlp_dropout': 0.0, 'model_type': 'modernbert-decoder', 'norm_bias': False, 'norm_eps': 1e-05,
    'num_attention_heads': 12, 'num_hidden_layers': 22, 'pad_token_id': 50283,
    'tie_word_embeddings': True, 'vocab_size': 50368,
  },
}
# fmt: on


@pytest.mark.parametrize('name', CONFIGS)
def test_published_config_matches_the_zoo(name):
  read = weights.published(text_config(_ALIKE | CONFIGS[name])).spec
  assert flattened(normalised(read)) == flattened(normalised(zoo.get(name)))
