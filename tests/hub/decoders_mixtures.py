"""Mixtures of experts and hybrids, of transformers at toy size."""

from tests.hub.published import SIZES, Case, K

_GQA = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0}
_MOE = {**_GQA, 'num_local_experts': 4, 'num_experts_per_tok': 2}
_V3 = {
  **_GQA, 'num_hidden_layers': 3, 'n_routed_experts': 8, 'num_experts_per_tok': 3, 'moe_intermediate_size': 24,
  'n_shared_experts': 2, 'first_k_dense_replace': 1, 'routed_scaling_factor': 2.5,
}  # fmt: skip
_GRANITE = {
  **_MOE, 'embedding_multiplier': 6.0, 'attention_multiplier': 0.25, 'residual_multiplier': 0.3,
  'logits_scaling': 6.0,
}  # fmt: skip
_LONGROPE = {
  'rope_type': 'longrope', 'rope_theta': 1e4, 'short_factor': [1.0, 1.5, 2.0, 3.0], 'long_factor': [1.0, 2.0, 4.0, 8.0],
  'short_mscale': 1.25, 'long_mscale': 1.25, 'original_max_position_embeddings': 64,
}  # fmt: skip
_BIASES = tuple(f'model.layers.{i}.mlp.gate.e_score_correction_bias' for i in (1, 2))


def _of(stem: str, fields: dict, ending: str = 'ForCausalLM', config: str | None = None, **case) -> Case:
  return Case(f'{config or stem}Config', f'{stem}{ending}', fields, **case)


CASES = {
  'glm4-moe': _of('Glm4Moe', {**_V3, 'n_group': 4, 'topk_group': 2, 'use_qk_norm': True}, buffers=_BIASES, merged=True),
  'glm4-moe-one-group': _of('Glm4Moe', {
    **_V3, 'attention_bias': True, 'norm_topk_prob': False, 'head_dim': 12,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e6, 'partial_rotary_factor': 1.0},
  }, buffers=_BIASES, merged=True),
  'dots1': _of('Dots1', {**_V3, 'norm_topk_prob': True, 'sliding_window': 4, 'max_window_layers': 2}, buffers=_BIASES,
    merged=True),
  'granitemoe': _of('GraniteMoe', {**_GRANITE, 'tie_word_embeddings': True}, merged=True),
  'granitemoeshared': _of('GraniteMoeShared', {**_GRANITE, 'shared_intermediate_size': 20, 'attention_bias': True}, merged=True),
  'ernie4.5-moe': _of('Ernie4_5_Moe', {
    **_GQA, 'num_hidden_layers': 4, 'moe_num_experts': 4, 'moe_k': 2, 'moe_intermediate_size': 24, 'use_bias': True,
    'moe_layer_start_index': 1, 'moe_layer_end_index': 2,
  }, merged=True),
  'ernie4.5-moe-every-other': _of('Ernie4_5_Moe', {
    **_GQA, 'num_hidden_layers': 4, 'moe_num_experts': 4, 'moe_k': 2, 'moe_intermediate_size': 24,
    'moe_layer_interval': 2, 'moe_num_shared_experts': 0, 'tie_word_embeddings': False,
  }, merged=True),
  'phimoe': _of('Phimoe', {
    **_MOE, 'attention_bias': True, 'lm_head_bias': True, 'router_jitter_noise': 0.3, 'rope_parameters': _LONGROPE,
  }, merged=True, whole=True),
  'phimoe-classifier': _of('Phimoe', {**_MOE, 'num_labels': 3, 'sliding_window': 4}, 'ForSequenceClassification',
    merged=True),
}  # fmt: skip
