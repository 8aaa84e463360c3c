"""Toy configs of mixtures of experts and hybrid models in transformers."""

from tests.hub.published import SIZES, Case, D, K, V

_GQA = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0}
_MOE = {**_GQA, 'num_local_experts': 4, 'num_experts_per_tok': 2}
_V3 = {
  **_GQA, 'num_hidden_layers': 3, 'n_routed_experts': 8, 'num_experts_per_tok': 3,
  'moe_intermediate_size': 24,
  'n_shared_experts': 2, 'first_k_dense_replace': 1, 'routed_scaling_factor': 2.5,
}  # fmt: skip
_GRANITE = {
  **_MOE, 'embedding_multiplier': 6.0, 'attention_multiplier': 0.25, 'residual_multiplier': 0.3,
  'logits_scaling': 6.0,
}  # fmt: skip
_LONGROPE = {
  'rope_type': 'longrope', 'rope_theta': 1e4, 'short_factor': [1.0, 1.5, 2.0, 3.0],
  'long_factor': [1.0, 2.0, 4.0, 8.0],
  'short_mscale': 1.25, 'long_mscale': 1.25, 'original_max_position_embeddings': 64,
}  # fmt: skip
_BIASES = tuple(f'model.layers.{i}.mlp.gate.e_score_correction_bias' for i in (1, 2))

_DELTA = {
  **_GQA, 'num_hidden_layers': 4, 'head_dim': 16, 'linear_key_head_dim': 6,
  'linear_value_head_dim': 8, 'linear_num_key_heads': 2, 'linear_num_value_heads': 4,
}  # fmt: skip
_QWEN_MOE = {
  'num_experts': 4, 'num_experts_per_tok': 2, 'moe_intermediate_size': 24,
  'shared_expert_intermediate_size': 20,
}  # fmt: skip
_TURNED = {
  'rope_type': 'default',
  'rope_theta': 1e6,
  'partial_rotary_factor': 0.5,
  'mrope_section': [2, 1, 1],
}

_MAMBA = {'vocab_size': V, 'hidden_size': D, 'num_hidden_layers': 2, 'state_size': 6}
_MAMBA2 = {**_MAMBA, 'num_heads': 4, 'head_dim': 16, 'n_groups': 2}
_HYBRID = {**_GQA, 'mamba_n_heads': 4, 'mamba_d_state': 6, 'num_hidden_layers': 3}


def _of(
  stem: str, fields: dict, ending: str = 'ForCausalLM', config: str | None = None, **case
) -> Case:
  return Case(f'{config or stem}Config', f'{stem}{ending}', fields, **case)


CASES = {
  'glm4-moe': _of('Glm4Moe', {
    **_V3, 'n_group': 4, 'topk_group': 2, 'use_qk_norm': True,
  }, buffers=_BIASES, merged=True),
  'glm4-moe-one-group': _of('Glm4Moe', {
    **_V3, 'attention_bias': True, 'norm_topk_prob': False, 'head_dim': 12,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e6, 'partial_rotary_factor': 1.0},
  }, buffers=_BIASES, merged=True),
  'dots1': _of('Dots1', {
    **_V3, 'norm_topk_prob': True, 'sliding_window': 4, 'max_window_layers': 2,
  }, buffers=_BIASES, merged=True),
  'granitemoe': _of('GraniteMoe', {**_GRANITE, 'tie_word_embeddings': True}, merged=True),
  'granitemoeshared': _of('GraniteMoeShared', {
    **_GRANITE, 'shared_intermediate_size': 20, 'attention_bias': True,
  }, merged=True),
  'ernie4.5-moe': _of('Ernie4_5_Moe', {
    **_GQA, 'num_hidden_layers': 4, 'moe_num_experts': 4, 'moe_k': 2, 'moe_intermediate_size': 24,
    'use_bias': True, 'moe_layer_start_index': 1, 'moe_layer_end_index': 2,
  }, merged=True),
  'ernie4.5-moe-every-other': _of('Ernie4_5_Moe', {
    **_GQA, 'num_hidden_layers': 4, 'moe_num_experts': 4, 'moe_k': 2, 'moe_intermediate_size': 24,
    'moe_layer_interval': 2, 'moe_num_shared_experts': 0, 'tie_word_embeddings': False,
  }, merged=True),
  'phimoe': _of('Phimoe', {
    **_MOE, 'attention_bias': True, 'lm_head_bias': True, 'router_jitter_noise': 0.3,
    'rope_parameters': _LONGROPE,
  }, merged=True, whole=True),
  'phimoe-classifier': _of('Phimoe', {
    **_MOE, 'num_labels': 3, 'sliding_window': 4,
  }, 'ForSequenceClassification', merged=True),
  'qwen3-next': _of('Qwen3Next', {
    **_DELTA, **_QWEN_MOE, 'mlp_only_layers': [1],
  }, merged=True, whole=True),
  'qwen3-next-types': _of('Qwen3Next', {
    **_DELTA, **_QWEN_MOE, 'layer_types': ['full_attention', 'linear_attention'] * 2,
    'attention_bias': True,
    'linear_conv_kernel_dim': 2, 'norm_topk_prob': False, 'linear_num_key_heads': 4,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e6, 'partial_rotary_factor': 1.0},
  }, merged=True),
  'qwen3-next-tokens': _of('Qwen3Next', {
    **_DELTA, **_QWEN_MOE, 'num_hidden_layers': 2, 'num_labels': 3, 'full_attention_interval': 2,
  }, 'ForTokenClassification', merged=True),
  'qwen3.5': _of('Qwen3_5', {
    **_DELTA, 'rope_parameters': _TURNED,
  }, config='Qwen3_5Text', whole=True),
  'qwen3.5-moe': _of('Qwen3_5Moe', {
    **_DELTA, **_QWEN_MOE, 'tie_word_embeddings': True,
    'rope_parameters': {**_TURNED, 'partial_rotary_factor': 0.25, 'mrope_section': [1, 1, 0]},
  }, config='Qwen3_5MoeText', merged=True),
  # With these biases, left padding changes the outputs of transformers.
  'mamba': _of('Mamba', {**_MAMBA, 'use_bias': True}, whole=True, left=False, leaving=True),
  'mamba-options': _of('Mamba', {
    **_MAMBA, 'use_conv_bias': False, 'conv_kernel': 2, 'time_step_rank': 5, 'expand': 3,
    'hidden_act': 'gelu', 'tie_word_embeddings': False,
  }, leaving=True),
  'falcon-mamba': _of('FalconMamba', {**_MAMBA, 'mixer_rms_eps': 1e-3}, leaving=True),
  'mamba2': _of('Mamba2', {**_MAMBA2, 'time_step_limit': (0.05, 0.9)}, whole=True, leaving=True),
  'mamba2-options': _of('Mamba2', {
    **_MAMBA2, 'use_bias': True, 'use_conv_bias': False, 'n_groups': 1, 'tie_word_embeddings': True,
  }, left=False, leaving=True),
  'bamba': _of('Bamba', {
    **_HYBRID, 'attn_layer_indices': [1], 'mamba_n_groups': 2, 'mlp_bias': True,
  }),
  'granite4': _of('GraniteMoeHybrid', {
    **_HYBRID, **_GRANITE, 'num_hidden_layers': 3, 'shared_intermediate_size': 20,
    'layer_types': ['linear_attention', 'full_attention', 'linear_attention'],
  }, merged=True),
  'granite4-dense': _of('GraniteMoeHybrid', {
    **_HYBRID, **_GRANITE, 'num_hidden_layers': 3, 'shared_intermediate_size': 20,
    'num_local_experts': 0,
    'layer_types': ['full_attention', 'linear_attention', 'linear_attention'],
    'position_embedding_type': 'rope',
  }),
  # transformers counts left padding in the positions that scale queries.
  'llama4': _of('Llama4', {
    **_MOE, 'num_hidden_layers': 5, 'head_dim': 8, 'num_experts_per_tok': 1,
    'interleave_moe_layer_step': 2,
    'intermediate_size_mlp': 40, 'attention_chunk_size': 5, 'floor_scale': 3, 'attn_scale': 0.5,
  }, config='Llama4Text', left=False, whole=True),
  'llama4-untuned': _of('Llama4', {
    **_MOE, 'num_hidden_layers': 3, 'head_dim': 8, 'num_experts_per_tok': 2,
    'attn_temperature_tuning': False, 'use_qk_norm': False, 'attention_chunk_size': 4,
    'attention_bias': True, 'no_rope_layers': [0, 1, 1],
  }, config='Llama4Text'),
  # The convolution in transformers reads left padding.
  'recurrent-gemma': _of('RecurrentGemma', {
    **_GQA, 'num_hidden_layers': 4, 'lru_width': 40, 'attention_window_size': 4,
    'logits_soft_cap': 5.0,
  }, left=False, whole=True),
  'lfm2': _of('Lfm2', {
    **_GQA, 'num_hidden_layers': 3, 'layer_types': ['conv', 'full_attention', 'conv'],
    'block_multiple_of': 8,
  }, whole=True),
  'lfm2-biases': _of('Lfm2', {
    **_GQA, 'num_hidden_layers': 3, 'full_attn_idxs': [0], 'block_auto_adjust_ff_dim': False,
    'conv_bias': True, 'conv_L_cache': 4, 'tie_word_embeddings': False,
  }, left=False),
  'falcon-h1': _of('FalconH1', {
    **_HYBRID, 'num_hidden_layers': 2, 'mamba_d_ssm': 48, 'mamba_n_groups': 2,
    'key_multiplier': 0.5, 'attention_in_multiplier': 1.5, 'attention_out_multiplier': 0.7,
    'ssm_in_multiplier': 0.8, 'ssm_multipliers': [0.5, 1.5, 0.7, 1.2, 0.9],
    'ssm_out_multiplier': 1.3, 'mlp_multipliers': [0.6, 1.4], 'embedding_multiplier': 3.0,
    'lm_head_multiplier': 0.5, 'attention_bias': True,
  }, whole=True),
  'falcon-h1-norm': _of('FalconH1', {
    **_HYBRID, 'num_hidden_layers': 2, 'mamba_d_ssm': None, 'mamba_rms_norm': True,
    'mamba_n_groups': 2, 'tie_word_embeddings': True, 'mlp_bias': True,
  }),
  'jamba': _of('Jamba', {
    **_GQA, 'num_hidden_layers': 4, 'num_experts': 4, 'attn_layer_period': 3,
    'attn_layer_offset': 1, 'mamba_d_state': 6,
  }, merged=True, whole=True),
  'hunyuan-moe': _of('HunYuanMoEV1', {
    **_GQA, 'num_experts': 4, 'moe_topk': [2, 3], 'head_dim': 8,
    'rope_parameters': {'rope_type': 'dynamic', 'rope_theta': 1e4, 'factor': 1.0, 'alpha': 50.0},
  }, merged=True),
  'hunyuan-moe-classifier': _of('HunYuanMoEV1', {
    **_GQA, 'num_experts': 4, 'moe_topk': 2, 'head_dim': 8, 'num_labels': 3, 'attention_bias': True,
  }, 'ForSequenceClassification', merged=True),
}  # fmt: skip
