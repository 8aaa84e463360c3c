"""Published configs, also with older field names, match the models of the zoo."""

import pytest

from tfm import zoo
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.zoo import weights

_LOCAL, _ALL = 'sliding_attention', 'full_attention'
#: Common fields that do not affect the outputs.
_ALIKE = {
  'bos_token_id': 1, 'eos_token_id': 2, 'initializer_range': 0.02, 'torch_dtype': 'bfloat16',
  'transformers_version': '4.40.0', 'use_cache': True,
}  # fmt: skip

# fmt: off
CONFIGS = {
  'mistral-7b-v0.1': {
    'architectures': ['MistralForCausalLM'], 'hidden_act': 'silu', 'hidden_size': 4096,
    'intermediate_size': 14336, 'max_position_embeddings': 32768, 'model_type': 'mistral',
    'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8,
    'rms_norm_eps': 1e-05, 'rope_theta': 10000.0, 'sliding_window': 4096,
    'tie_word_embeddings': False, 'vocab_size': 32000,
  },
  'mistral-7b-v0.3': {
    'architectures': ['MistralForCausalLM'], 'attention_dropout': 0.0, 'hidden_act': 'silu',
    'hidden_size': 4096, 'intermediate_size': 14336, 'max_position_embeddings': 32768,
    'model_type': 'mistral', 'num_attention_heads': 32, 'num_hidden_layers': 32,
    'num_key_value_heads': 8, 'rms_norm_eps': 1e-05, 'rope_theta': 1000000.0,
    'sliding_window': None, 'tie_word_embeddings': False, 'vocab_size': 32768,
  },
  'mistral-nemo-12b': {
    'architectures': ['MistralForCausalLM'], 'attention_dropout': 0.0, 'head_dim': 128,
    'hidden_act': 'silu', 'hidden_size': 5120, 'intermediate_size': 14336,
    'max_position_embeddings': 1024000, 'model_type': 'mistral', 'num_attention_heads': 32,
    'num_hidden_layers': 40, 'num_key_value_heads': 8, 'rms_norm_eps': 1e-05,
    'rope_theta': 1000000.0, 'sliding_window': None, 'tie_word_embeddings': False,
    'vocab_size': 131072,
  },
  'mixtral-8x7b': {
    'architectures': ['MixtralForCausalLM'], 'attention_dropout': 0.0, 'hidden_act': 'silu',
    'hidden_size': 4096, 'intermediate_size': 14336, 'max_position_embeddings': 32768,
    'model_type': 'mixtral', 'num_attention_heads': 32, 'num_experts_per_tok': 2,
    'num_hidden_layers': 32, 'num_key_value_heads': 8, 'num_local_experts': 8,
    'output_router_logits': False, 'rms_norm_eps': 1e-05, 'rope_theta': 1000000.0,
    'router_aux_loss_coef': 0.02, 'sliding_window': None, 'tie_word_embeddings': False,
    'vocab_size': 32000,
  },
  'qwen2.5-7b': {
    'architectures': ['Qwen2ForCausalLM'], 'attention_dropout': 0.0, 'hidden_act': 'silu',
    'hidden_size': 3584, 'intermediate_size': 18944, 'max_position_embeddings': 131072,
    'max_window_layers': 28, 'model_type': 'qwen2', 'num_attention_heads': 28,
    'num_hidden_layers': 28, 'num_key_value_heads': 4, 'rms_norm_eps': 1e-06,
    'rope_theta': 1000000.0, 'sliding_window': 131072, 'tie_word_embeddings': False,
    'use_mrope': False, 'use_sliding_window': False, 'vocab_size': 152064,
  },
  'qwen3-8b': {
    'architectures': ['Qwen3ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': 4096, 'intermediate_size': 12288,
    'max_position_embeddings': 40960, 'max_window_layers': 36, 'model_type': 'qwen3',
    'num_attention_heads': 32, 'num_hidden_layers': 36, 'num_key_value_heads': 8,
    'rms_norm_eps': 1e-06, 'rope_scaling': None, 'rope_theta': 1000000, 'sliding_window': None,
    'tie_word_embeddings': False, 'use_sliding_window': False, 'vocab_size': 151936,
  },
  'qwen3-30b-a3b': {
    'architectures': ['Qwen3MoeForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'decoder_sparse_step': 1, 'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': 2048,
    'intermediate_size': 6144, 'max_position_embeddings': 40960, 'max_window_layers': 48,
    'mlp_only_layers': [], 'model_type': 'qwen3_moe', 'moe_intermediate_size': 768,
    'norm_topk_prob': True, 'num_attention_heads': 32, 'num_experts': 128, 'num_experts_per_tok': 8,
    'num_hidden_layers': 48, 'num_key_value_heads': 4, 'output_router_logits': False,
    'rms_norm_eps': 1e-06, 'rope_scaling': None, 'rope_theta': 1000000.0,
    'router_aux_loss_coef': 0.001, 'sliding_window': None, 'tie_word_embeddings': False,
    'use_sliding_window': False, 'vocab_size': 151936,
  },
  'qwen1.5-moe-a2.7b': {
    'architectures': ['Qwen2MoeForCausalLM'], 'attention_dropout': 0.0, 'decoder_sparse_step': 1,
    'hidden_act': 'silu', 'hidden_size': 2048, 'intermediate_size': 5632,
    'max_position_embeddings': 8192, 'max_window_layers': 21, 'model_type': 'qwen2_moe',
    'moe_intermediate_size': 1408, 'norm_topk_prob': False, 'num_attention_heads': 16,
    'num_experts': 60, 'num_experts_per_tok': 4, 'num_hidden_layers': 24, 'num_key_value_heads': 16,
    'output_router_logits': False, 'rms_norm_eps': 1e-06, 'rope_theta': 1000000.0,
    'router_aux_loss_coef': 0.001, 'shared_expert_intermediate_size': 5632, 'sliding_window': 32768,
    'tie_word_embeddings': False, 'use_sliding_window': False, 'vocab_size': 151936,
  },
  'gemma-2b': {
    'architectures': ['GemmaForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'head_dim': 256, 'hidden_act': 'gelu', 'hidden_activation': None, 'hidden_size': 2048,
    'intermediate_size': 16384, 'max_position_embeddings': 8192, 'model_type': 'gemma',
    'num_attention_heads': 8, 'num_hidden_layers': 18, 'num_key_value_heads': 1, 'pad_token_id': 0,
    'rms_norm_eps': 1e-06, 'rope_scaling': None, 'rope_theta': 10000.0, 'vocab_size': 256000,
  },
  'gemma2-9b': {
    'architectures': ['Gemma2ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'attn_logit_softcapping': 50.0, 'cache_implementation': 'hybrid',
    'final_logit_softcapping': 30.0, 'head_dim': 256, 'hidden_act': 'gelu_pytorch_tanh',
    'hidden_activation': 'gelu_pytorch_tanh', 'hidden_size': 3584, 'intermediate_size': 14336,
    'max_position_embeddings': 8192, 'model_type': 'gemma2', 'num_attention_heads': 16,
    'num_hidden_layers': 42, 'num_key_value_heads': 8, 'pad_token_id': 0,
    'query_pre_attn_scalar': 256, 'rms_norm_eps': 1e-06, 'rope_theta': 10000.0,
    'sliding_window': 4096, 'sliding_window_size': 4096, 'vocab_size': 256000,
  },
  'gemma3-1b': {
    'architectures': ['Gemma3ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'attn_logit_softcapping': None, 'cache_implementation': 'hybrid',
    'final_logit_softcapping': None, 'head_dim': 256, 'hidden_activation': 'gelu_pytorch_tanh',
    'hidden_size': 1152, 'intermediate_size': 6912, 'max_position_embeddings': 32768,
    'model_type': 'gemma3_text', 'num_attention_heads': 4, 'num_hidden_layers': 26,
    'num_key_value_heads': 1, 'pad_token_id': 0, 'query_pre_attn_scalar': 256,
    'rms_norm_eps': 1e-06, 'rope_local_base_freq': 10000, 'rope_scaling': None,
    'rope_theta': 1000000, 'sliding_window': 512, 'sliding_window_pattern': 6, 'vocab_size': 262144,
  },
  'olmoe-1b-7b': {
    'architectures': ['OlmoeForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'clip_qkv': None, 'hidden_act': 'silu', 'hidden_size': 2048, 'intermediate_size': 1024,
    'max_position_embeddings': 4096, 'model_type': 'olmoe', 'norm_topk_prob': False,
    'num_attention_heads': 16, 'num_experts': 64, 'num_experts_per_tok': 8, 'num_hidden_layers': 16,
    'num_key_value_heads': 16, 'output_router_logits': False, 'pad_token_id': 1,
    'rms_norm_eps': 1e-05, 'rope_scaling': None, 'rope_theta': 10000.0,
    'router_aux_loss_coef': 0.01, 'tie_word_embeddings': False, 'vocab_size': 50304,
  },
  'olmo2-7b': {
    'architectures': ['Olmo2ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'hidden_act': 'silu', 'hidden_size': 4096, 'intermediate_size': 11008,
    'max_position_embeddings': 4096, 'model_type': 'olmo2', 'num_attention_heads': 32,
    'num_hidden_layers': 32, 'num_key_value_heads': 32, 'pad_token_id': 100277,
    'rms_norm_eps': 1e-06, 'rope_scaling': None, 'rope_theta': 500000, 'tie_word_embeddings': False,
    'vocab_size': 100352,
  },
  'olmo-7b': {
    'architectures': ['OlmoForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'clip_qkv': None, 'hidden_act': 'silu', 'hidden_size': 4096, 'intermediate_size': 11008,
    'max_position_embeddings': 2048, 'model_type': 'olmo', 'num_attention_heads': 32,
    'num_hidden_layers': 32, 'num_key_value_heads': 32, 'pad_token_id': 1, 'pretraining_tp': 1,
    'rope_scaling': None, 'rope_theta': 10000.0, 'tie_word_embeddings': False, 'vocab_size': 50304,
  },
  'phi3-mini': {
    'architectures': ['Phi3ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'auto_map': {'x': 'y'}, 'embd_pdrop': 0.0, 'hidden_act': 'silu', 'hidden_size': 3072,
    'intermediate_size': 8192, 'max_position_embeddings': 4096, 'model_type': 'phi3',
    'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 32,
    'original_max_position_embeddings': 4096, 'pad_token_id': 32000, 'resid_pdrop': 0.0,
    'rms_norm_eps': 1e-05, 'rope_scaling': None, 'rope_theta': 10000.0, 'sliding_window': 2047,
    'tie_word_embeddings': False, 'vocab_size': 32064,
  },
  'smollm3-3b': {
    'architectures': ['SmolLM3ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'hidden_act': 'silu', 'hidden_size': 2048, 'intermediate_size': 11008,
    'layer_types': [_ALL] * 36, 'max_position_embeddings': 65536, 'max_window_layers': 28,
    'mlp_bias': False, 'model_type': 'smollm3', 'no_rope_layer_interval': 4,
    'no_rope_layers': [1, 1, 1, 0] * 9, 'num_attention_heads': 16, 'num_hidden_layers': 36,
    'num_key_value_heads': 4, 'pretraining_tp': 2, 'rms_norm_eps': 1e-06, 'rope_scaling': None,
    'rope_theta': 5000000.0, 'sliding_window': None, 'use_sliding_window': False,
    'vocab_size': 128256,
  },
  'granite3-8b': {
    'architectures': ['GraniteForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.1,
    'attention_multiplier': 0.0078125, 'embedding_multiplier': 12.0, 'hidden_act': 'silu',
    'hidden_size': 4096, 'intermediate_size': 12800, 'logits_scaling': 16.0,
    'max_position_embeddings': 4096, 'mlp_bias': False, 'model_type': 'granite',
    'num_attention_heads': 32, 'num_hidden_layers': 40, 'num_key_value_heads': 8, 'pad_token_id': 0,
    'residual_multiplier': 0.22, 'rms_norm_eps': 1e-05, 'rope_scaling': None, 'rope_theta': 10000,
    'tie_word_embeddings': True, 'vocab_size': 49155,
  },
  'glm4-9b': {
    'architectures': ['Glm4ForCausalLM'], 'attention_bias': True, 'attention_dropout': 0.0,
    'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': 4096, 'intermediate_size': 13696,
    'max_position_embeddings': 32768, 'model_type': 'glm4', 'num_attention_heads': 32,
    'num_hidden_layers': 40, 'num_key_value_heads': 2, 'pad_token_id': 151329,
    'partial_rotary_factor': 0.5, 'rms_norm_eps': 1e-05, 'rope_theta': 10000.0,
    'tie_word_embeddings': False, 'vocab_size': 151552,
  },
  'ernie4.5-0.3b': {
    'architectures': ['Ernie4_5ForCausalLM'], 'head_dim': 128, 'hidden_act': 'silu',
    'hidden_size': 1024, 'intermediate_size': 3072, 'max_position_embeddings': 131072,
    'model_type': 'ernie4_5', 'num_attention_heads': 16, 'num_hidden_layers': 18,
    'num_key_value_heads': 2, 'pad_token_id': 0, 'rms_norm_eps': 1e-05, 'rope_scaling': None,
    'rope_theta': 500000.0, 'tie_word_embeddings': True, 'use_bias': False, 'vocab_size': 103424,
  },
  'starcoder2-7b': {
    'architectures': ['Starcoder2ForCausalLM'], 'activation_function': 'gelu',
    'attention_dropout': 0.1, 'attention_softmax_in_fp32': True, 'embedding_dropout': 0.1,
    'hidden_act': 'gelu_pytorch_tanh', 'hidden_size': 4608, 'intermediate_size': 18432,
    'layer_norm_epsilon': 1e-05, 'max_position_embeddings': 16384, 'mlp_type': 'default',
    'model_type': 'starcoder2', 'norm_epsilon': 1e-05, 'norm_type': 'layer_norm',
    'num_attention_heads': 36, 'num_hidden_layers': 32, 'num_key_value_heads': 4,
    'residual_dropout': 0.1, 'rope_theta': 1000000, 'scale_attention_softmax_in_fp32': True,
    'scale_attn_weights': True, 'sliding_window': 4096, 'use_bias': True, 'vocab_size': 49152,
  },
  'exaone4-32b': {
    'architectures': ['Exaone4ForCausalLM'], 'attention_dropout': 0.0, 'head_dim': 128,
    'hidden_act': 'silu', 'hidden_size': 5120, 'intermediate_size': 27392,
    'layer_types': [_LOCAL, _LOCAL, _LOCAL, _ALL] * 16, 'max_position_embeddings': 131072,
    'model_type': 'exaone4', 'num_attention_heads': 40, 'num_hidden_layers': 64,
    'num_key_value_heads': 8, 'pad_token_id': 0, 'rms_norm_eps': 1e-05,
    'rope_scaling': {
      'factor': 16.0, 'high_freq_factor': 4.0, 'low_freq_factor': 1.0,
      'original_max_position_embeddings': 8192, 'rope_type': 'llama3',
    },
    'rope_theta': 1000000, 'sliding_window': 4096, 'sliding_window_pattern': 'LLLG',
    'tie_word_embeddings': False, 'vocab_size': 102400,
  },
  'deepseek-v2-lite': {
    'architectures': ['DeepseekV2ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'aux_loss_alpha': 0.001, 'first_k_dense_replace': 1, 'hidden_act': 'silu', 'hidden_size': 2048,
    'intermediate_size': 10944, 'kv_lora_rank': 512, 'max_position_embeddings': 163840,
    'model_type': 'deepseek_v2', 'moe_intermediate_size': 1408, 'moe_layer_freq': 1, 'n_group': 1,
    'n_routed_experts': 64, 'n_shared_experts': 2, 'norm_topk_prob': False,
    'num_attention_heads': 16, 'num_experts_per_tok': 6, 'num_hidden_layers': 27,
    'num_key_value_heads': 16, 'pretraining_tp': 1, 'q_lora_rank': None, 'qk_nope_head_dim': 128,
    'qk_rope_head_dim': 64, 'rms_norm_eps': 1e-06,
    'rope_scaling': {
      'beta_fast': 32, 'beta_slow': 1, 'factor': 40, 'mscale': 0.707, 'mscale_all_dim': 0.707,
      'original_max_position_embeddings': 4096, 'type': 'yarn',
    },
    'rope_theta': 10000, 'routed_scaling_factor': 1.0, 'scoring_func': 'softmax', 'seq_aux': True,
    'tie_word_embeddings': False, 'topk_group': 1, 'topk_method': 'greedy', 'v_head_dim': 128,
    'vocab_size': 102400,
  },
  'deepseek-v3-mtp': {
    'architectures': ['DeepseekV3ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'aux_loss_alpha': 0.001, 'ep_size': 1, 'first_k_dense_replace': 3, 'hidden_act': 'silu',
    'hidden_size': 7168, 'intermediate_size': 18432, 'kv_lora_rank': 512,
    'max_position_embeddings': 163840, 'model_type': 'deepseek_v3', 'moe_intermediate_size': 2048,
    'moe_layer_freq': 1, 'n_group': 8, 'n_routed_experts': 256, 'n_shared_experts': 1,
    'norm_topk_prob': True, 'num_attention_heads': 128, 'num_experts_per_tok': 8,
    'num_hidden_layers': 61, 'num_key_value_heads': 128, 'num_nextn_predict_layers': 1,
    'pretraining_tp': 1, 'q_lora_rank': 1536, 'qk_nope_head_dim': 128, 'qk_rope_head_dim': 64,
    'rms_norm_eps': 1e-06,
    'quantization_config': {
      'activation_scheme': 'dynamic', 'fmt': 'e4m3', 'quant_method': 'fp8',
      'weight_block_size': [128, 128],
    },
    'rope_scaling': {
      'beta_fast': 32, 'beta_slow': 1, 'factor': 40, 'mscale': 1.0, 'mscale_all_dim': 1.0,
      'original_max_position_embeddings': 4096, 'type': 'yarn',
    },
    'rope_theta': 10000, 'routed_scaling_factor': 2.5, 'scoring_func': 'sigmoid', 'seq_aux': True,
    'tie_word_embeddings': False, 'topk_group': 4, 'topk_method': 'noaux_tc', 'v_head_dim': 128,
    'vocab_size': 129280,
  },
  'gpt-oss-20b': {
    'architectures': ['GptOssForCausalLM'], 'attention_bias': True, 'attention_dropout': 0.0,
    'experts_per_token': 4, 'head_dim': 64, 'hidden_act': 'silu', 'hidden_size': 2880,
    'initial_context_length': 4096, 'intermediate_size': 2880, 'layer_types': [_LOCAL, _ALL] * 12,
    'max_position_embeddings': 131072, 'model_type': 'gpt_oss', 'num_attention_heads': 64,
    'num_experts_per_tok': 4, 'num_hidden_layers': 24, 'num_key_value_heads': 8,
    'num_local_experts': 32, 'output_router_logits': False, 'pad_token_id': 199999,
    'quantization_config': {'modules_to_not_convert': [
      'model.layers.*.self_attn',
    ], 'quant_method': 'mxfp4'},
    'rms_norm_eps': 1e-05,
    'rope_scaling': {
      'beta_fast': 32.0, 'beta_slow': 1.0, 'factor': 32.0, 'original_max_position_embeddings': 4096,
      'rope_type': 'yarn', 'truncate': False,
    },
    'rope_theta': 150000, 'router_aux_loss_coef': 0.9, 'sliding_window': 128, 'swiglu_limit': 7.0,
    'tie_word_embeddings': False, 'vocab_size': 201088,
  },
  'dbrx': {
    'architectures': ['DbrxForCausalLM'],
    'attn_config': {'clip_qkv': 8, 'kv_n_heads': 8, 'model_type': '', 'rope_theta': 500000},
    'auto_map': {}, 'd_model': 6144, 'emb_pdrop': 0.0,
    'ffn_config': {
      'ffn_hidden_size': 10752, 'model_type': '', 'moe_jitter_eps': 0, 'moe_loss_weight': 0.05,
      'moe_num_experts': 16, 'moe_top_k': 4,
    },
    'max_seq_len': 32768, 'model_type': 'dbrx', 'n_heads': 48, 'n_layers': 40,
    'output_router_logits': False, 'resid_pdrop': 0.0, 'router_aux_loss_coef': 0.05,
    'tie_word_embeddings': False, 'vocab_size': 100352,
  },
}
# fmt: on


@pytest.mark.parametrize('name', CONFIGS)
def test_published_config_matches_the_zoo(name):
  read = weights.published(_ALIKE | CONFIGS[name], 'config.json').spec
  assert flattened(normalised(read)) == flattened(normalised(zoo.get(name)))
