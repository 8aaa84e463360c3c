"""Toy configs of Llama variants and mixtures of experts in transformers."""

from tests.hub.published import SIZES, Case, D, F, K, N, V

_GQA = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0}
_DEEP = {**_GQA, 'num_hidden_layers': 4, 'head_dim': 8, 'sliding_window': 4}
_MOE = {**_GQA, 'num_experts': 4, 'num_experts_per_tok': 2}
_LATENT = {
  **SIZES, 'num_hidden_layers': 3, 'num_key_value_heads': N, 'q_lora_rank': 20, 'kv_lora_rank': 16,
  'qk_nope_head_dim': 8, 'qk_rope_head_dim': 4, 'v_head_dim': 12, 'first_k_dense_replace': 1,
  'n_routed_experts': 8, 'moe_intermediate_size': 24, 'n_shared_experts': 2,
  'num_experts_per_tok': 3, 'routed_scaling_factor': 2.5,
}  # fmt: skip
_YARN = {
  'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 40.0, 'original_max_position_embeddings': 16,
  'mscale': 0.707, 'mscale_all_dim': 0.9,
}  # fmt: skip
_BIASES = tuple(f'model.layers.{i}.mlp.gate.e_score_correction_bias' for i in (1, 2))
_PATTERN = ['sliding_attention', 'full_attention', 'full_attention', 'sliding_attention']


def _of(
  stem: str, fields: dict, ending: str = 'ForCausalLM', config: str | None = None, **case
) -> Case:
  return Case(f'{config or stem}Config', f'{stem}{ending}', fields, **case)


CASES = {
  'mistral': _of('Mistral', {**_GQA, 'sliding_window': 4, 'head_dim': 12}),
  'mistral-classifier': _of('Mistral', {
    **_GQA, 'num_labels': 3, 'sliding_window': None,
  }, 'ForSequenceClassification'),
  'mixtral': _of('Mixtral', {**_GQA, 'num_local_experts': 4, 'sliding_window': 5}, merged=True),
  'qwen2': _of('Qwen2', {**_GQA, 'tie_word_embeddings': True}),
  'qwen2-windows': _of('Qwen2', {
    **_GQA, 'num_hidden_layers': 4, 'use_sliding_window': True, 'sliding_window': 4,
    'max_window_layers': 2,
  }),
  'qwen2-tokens': _of('Qwen2', {**_GQA, 'num_labels': 3}, 'ForTokenClassification'),
  'qwen3': _of('Qwen3', {**_GQA, 'head_dim': 8, 'attention_bias': True}),
  'qwen3-pattern': _of('Qwen3', {**_DEEP, 'use_sliding_window': True, 'layer_types': _PATTERN}),
  'qwen3-moe': _of('Qwen3Moe', {
    **_MOE, 'num_hidden_layers': 3, 'head_dim': 8, 'moe_intermediate_size': 24,
    'mlp_only_layers': [0], 'norm_topk_prob': True, 'use_sliding_window': True, 'sliding_window': 4,
  }, merged=True),
  'qwen3-moe-every-other': _of('Qwen3Moe', {
    **_MOE, 'num_hidden_layers': 4, 'moe_intermediate_size': 24, 'decoder_sparse_step': 2,
  }, merged=True),
  'qwen2-moe': _of('Qwen2Moe', {
    **_MOE, 'num_hidden_layers': 3, 'moe_intermediate_size': 24,
    'shared_expert_intermediate_size': 20,
    'mlp_only_layers': [1], 'use_sliding_window': True, 'sliding_window': 4,
  }, merged=True),
  'gemma': _of('Gemma', {**_GQA, 'head_dim': 12}),
  'gemma2': _of('Gemma2', {**_DEEP, 'query_pre_attn_scalar': 24}),
  'gemma3': _of('Gemma3', {
    **_DEEP, 'num_hidden_layers': 7, 'query_pre_attn_scalar': 24, 'final_logit_softcapping': 5.0,
    'rope_parameters': {
      'full_attention': {'rope_type': 'linear', 'rope_theta': 1e6, 'factor': 8.0},
      'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4},
    },
  }, config='Gemma3Text'),
  'gemma3-both-ways': _of(
    'Gemma3', {**_DEEP, 'use_bidirectional_attention': True, 'layer_types': _PATTERN}, 'TextModel',
    'Gemma3Text'
  ),
  'olmo': _of('Olmo', {**_GQA, 'clip_qkv': 0.5}),
  'olmo2': _of('Olmo2', {**_GQA, 'attention_bias': True}),
  'olmoe': _of('Olmoe', {**_MOE, 'clip_qkv': 0.8}, merged=True),
  'phi3': _of('Phi3', {**_GQA, 'sliding_window': 4, 'resid_pdrop': 0.1}),
  'phi3-longrope': _of('Phi3', {
    **_GQA, 'original_max_position_embeddings': 8,
    'rope_parameters': {
      'rope_type': 'longrope', 'partial_rotary_factor': 0.5, 'rope_theta': 1e4,
      'short_factor': [1.0, 1.5], 'long_factor': [1.0, 3.0],
    },
  }),
  'smollm3': _of('SmolLM3', {
    **_GQA, 'num_hidden_layers': 4, 'no_rope_layer_interval': 2, 'use_sliding_window': True,
    'sliding_window': 4,
  }),
  'granite': _of('Granite', {
    **_GQA, 'embedding_multiplier': 6.0, 'attention_multiplier': 0.25, 'residual_multiplier': 0.3,
    'logits_scaling': 49.0, 'tie_word_embeddings': True,
  }),
  'glm4': _of('Glm4', {**_GQA, 'head_dim': 8}),
  'ernie4.5': _of('Ernie4_5', {**_GQA, 'head_dim': 8, 'use_bias': True}),
  'starcoder2': _of('Starcoder2', {**_GQA, 'sliding_window': 4}),
  'exaone4': _of('Exaone4', {**_DEEP, 'num_hidden_layers': 5}),
  'exaone4-full': _of('Exaone4', {
    **_GQA, 'sliding_window': None, 'layer_types': ['full_attention'] * 2,
  }),
  'deepseek-v2': _of('DeepseekV2', {
    **_LATENT, 'rope_parameters': _YARN, 'attention_bias': True,
  }, merged=True),
  'deepseek-v2-groups': _of('DeepseekV2', {
    **_LATENT, 'q_lora_rank': None, 'topk_method': 'group_limited_greedy', 'n_group': 4,
    'topk_group': 2, 'mlp_bias': True,
  }, merged=True),
  'deepseek-v3': _of('DeepseekV3', {
    **_LATENT, 'rope_parameters': _YARN, 'n_group': 4, 'topk_group': 2,
  }, merged=True, buffers=_BIASES),
  'deepseek-v3-one-group': _of('DeepseekV3', {
    **_LATENT, 'q_lora_rank': None, 'attention_bias': True, 'n_group': 1, 'topk_group': 1,
    'norm_topk_prob': False, 'rope_interleave': False, 'rope_parameters': {**_YARN, 'mscale': None},
  }, merged=True, buffers=_BIASES),
  'gpt-oss': _of('GptOss', {
    **_GQA, 'num_hidden_layers': 4, 'head_dim': 8, 'sliding_window': 4, 'num_local_experts': 4,
    'num_experts_per_tok': 2, 'swiglu_limit': 0.5,
  }),
  'dbrx': _of('Dbrx', {
    'vocab_size': V, 'd_model': D, 'n_heads': N, 'n_layers': 2, 'max_seq_len': 64,
    'attn_config': {'kv_n_heads': K, 'clip_qkv': 0.5, 'rope_theta': 1e4},
    'ffn_config': {'ffn_hidden_size': F, 'moe_num_experts': 4, 'moe_top_k': 2},
  }),
}  # fmt: skip
