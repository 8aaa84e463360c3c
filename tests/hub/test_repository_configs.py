"""Configs in the repositories of published models match the models of the zoo.

They were written from memory, without fields that every family ignores.
"""

import pytest

from tfm import zoo
from tfm.core import errors
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.zoo.weights import published

_SUMMARY = {
  'summary_activation': None, 'summary_first_dropout': 0.1, 'summary_proj_to_labels': True,
  'summary_type': 'cls_index', 'summary_use_proj': True,
}  # fmt: skip

CONFIGS = {
  'gpt': {
    'model_type': 'openai-gpt', 'architectures': ['OpenAIGPTLMHeadModel'], 'afn': 'gelu',
    'attn_pdrop': 0.1, 'embd_pdrop': 0.1, 'layer_norm_epsilon': 1e-5, 'n_ctx': 512, 'n_embd': 768,
    'n_head': 12, 'n_layer': 12, 'n_positions': 512, 'n_special': 0, 'predict_special_tokens': True,
    'resid_pdrop': 0.1, 'vocab_size': 40_478, **_SUMMARY,
  },
  'gpt-neo-1.3b': {
    'model_type': 'gpt_neo', 'architectures': ['GPTNeoForCausalLM'],
    'activation_function': 'gelu_new', 'attention_dropout': 0,
    'attention_layers': ['global', 'local'] * 12, 'attention_types': [[['global', 'local'], 12]],
    'embed_dropout': 0, 'hidden_size': 2048, 'intermediate_size': None, 'layer_norm_epsilon': 1e-5,
    'max_position_embeddings': 2048, 'num_heads': 16, 'num_layers': 24, 'resid_dropout': 0,
    'vocab_size': 50_257, 'window_size': 256, **_SUMMARY,
  },
  'gptj-6b': {
    'model_type': 'gptj', 'architectures': ['GPTJForCausalLM'], 'activation_function': 'gelu_new',
    'attn_pdrop': 0.0, 'embd_pdrop': 0.0, 'layer_norm_epsilon': 1e-5, 'n_embd': 4096, 'n_head': 16,
    'n_inner': None, 'n_layer': 28, 'n_positions': 2048, 'resid_pdrop': 0.0, 'rotary': True,
    'rotary_dim': 64, 'scale_attn_weights': True, 'tie_word_embeddings': False,
    'vocab_size': 50_400, **_SUMMARY,
  },
  'codegen-350m': {
    'model_type': 'codegen', 'architectures': ['CodeGenForCausalLM'],
    'activation_function': 'gelu_new', 'attn_pdrop': 0.0, 'embd_pdrop': 0.0,
    'layer_norm_epsilon': 1e-5, 'n_ctx': 2048, 'n_embd': 1024, 'n_head': 16, 'n_inner': None,
    'n_layer': 20, 'n_positions': 2048, 'resid_pdrop': 0.0, 'rotary_dim': 32,
    'scale_attn_weights': True, 'tie_word_embeddings': False, 'vocab_size': 51_200, **_SUMMARY,
  },
  'pythia-160m': {
    'model_type': 'gpt_neox', 'architectures': ['GPTNeoXForCausalLM'], 'hidden_act': 'gelu',
    'hidden_size': 768, 'intermediate_size': 3072, 'layer_norm_eps': 1e-5,
    'max_position_embeddings': 2048, 'num_attention_heads': 12, 'num_hidden_layers': 12,
    'rotary_emb_base': 10_000, 'rotary_pct': 0.25, 'tie_word_embeddings': False,
    'use_parallel_residual': True, 'vocab_size': 50_304,
  },
  'gpt-neox-20b': {
    'model_type': 'gpt_neox', 'architectures': ['GPTNeoXForCausalLM'],
    'attention_probs_dropout_prob': 0, 'hidden_act': 'gelu_fast', 'hidden_dropout_prob': 0,
    'hidden_size': 6144, 'intermediate_size': 24_576, 'layer_norm_eps': 1e-5,
    'max_position_embeddings': 2048, 'num_attention_heads': 64, 'num_hidden_layers': 44,
    'rotary_emb_base': 10_000, 'rotary_pct': 0.25, 'tie_word_embeddings': False,
    'vocab_size': 50_432,
  },
  'opt-1.3b': {
    'model_type': 'opt', 'architectures': ['OPTForCausalLM'], '_remove_final_layer_norm': False,
    'activation_dropout': 0.0, 'activation_function': 'relu', 'attention_dropout': 0.0,
    'do_layer_norm_before': True, 'dropout': 0.1, 'ffn_dim': 8192, 'hidden_size': 2048,
    'layerdrop': 0.0, 'max_position_embeddings': 2048, 'num_attention_heads': 32,
    'num_hidden_layers': 24, 'vocab_size': 50_272, 'word_embed_proj_dim': 2048,
  },
  'opt-350m': {
    'model_type': 'opt', 'architectures': ['OPTForCausalLM'], '_remove_final_layer_norm': False,
    'activation_dropout': 0.0, 'activation_function': 'relu', 'attention_dropout': 0.0,
    'do_layer_norm_before': False, 'dropout': 0.1, 'ffn_dim': 4096, 'hidden_size': 1024,
    'layerdrop': 0.0, 'max_position_embeddings': 2048, 'num_attention_heads': 16,
    'num_hidden_layers': 24, 'vocab_size': 50_272, 'word_embed_proj_dim': 512,
  },
  'bloom-560m': {
    'model_type': 'bloom', 'architectures': ['BloomForCausalLM'],
    'apply_residual_connection_post_layernorm': False, 'attention_dropout': 0.0,
    'attention_softmax_in_fp32': True, 'bias_dropout_fusion': True, 'hidden_dropout': 0.0,
    'layer_norm_epsilon': 1e-5, 'masked_softmax_fusion': True, 'n_embed': 1024, 'n_inner': None,
    'n_layer': 24, 'num_attention_heads': 16, 'offset_alibi': 100, 'pretraining_tp': 1,
    'seq_length': 2048, 'skip_bias_add': True, 'skip_bias_add_qkv': False, 'slow_but_exact': False,
    'vocab_size': 250_880,
  },
  'mpt-7b': {
    'model_type': 'mpt', 'architectures': ['MPTForCausalLM'],
    'attn_config': {
      'alibi': True, 'alibi_bias_max': 8, 'attn_impl': 'torch', 'attn_pdrop': 0,
      'attn_type': 'multihead_attention', 'attn_uses_sequence_id': False, 'clip_qkv': None,
      'prefix_lm': False, 'qk_ln': False, 'softmax_scale': None,
    },
    'd_model': 4096, 'emb_pdrop': 0, 'embedding_fraction': 1.0, 'expansion_ratio': 4,
    'init_config': {'name': 'kaiming_normal_'}, 'init_device': 'cpu', 'learned_pos_emb': True,
    'logit_scale': None, 'max_seq_len': 2048, 'n_heads': 32, 'n_layers': 32, 'no_bias': True,
    'norm_type': 'low_precision_layernorm', 'resid_pdrop': 0,
    'tokenizer_name': 'EleutherAI/gpt-neox-20b', 'verbose': 0, 'vocab_size': 50_432,
  },
  'falcon-7b': {
    'model_type': 'falcon', 'architectures': ['FalconForCausalLM'], 'alibi': False,
    'apply_residual_connection_post_layernorm': False, 'attention_dropout': 0.0, 'bias': False,
    'hidden_dropout': 0.0, 'hidden_size': 4544, 'layer_norm_epsilon': 1e-5, 'multi_query': True,
    'new_decoder_architecture': False, 'num_attention_heads': 71, 'num_hidden_layers': 32,
    'parallel_attn': True, 'vocab_size': 65_024,
  },
  'falcon-40b': {
    'model_type': 'falcon', 'architectures': ['FalconForCausalLM'], 'alibi': False,
    'apply_residual_connection_post_layernorm': False, 'attention_dropout': 0.0, 'bias': False,
    'hidden_dropout': 0.0, 'hidden_size': 8192, 'layer_norm_epsilon': 1e-5,
    'new_decoder_architecture': True, 'num_attention_heads': 128, 'num_hidden_layers': 60,
    'num_kv_heads': 8, 'parallel_attn': True, 'vocab_size': 65_024,
  },
  'starcoder': {
    'model_type': 'gpt_bigcode', 'architectures': ['GPTBigCodeForCausalLM'],
    'activation_function': 'gelu_pytorch_tanh', 'attention_softmax_in_fp32': True,
    'attn_pdrop': 0.1, 'embd_pdrop': 0.1, 'inference_runner': 0, 'layer_norm_epsilon': 1e-5,
    'max_batch_size': None, 'max_sequence_length': None, 'multi_query': True, 'n_embd': 6144,
    'n_head': 48, 'n_inner': 24_576, 'n_layer': 40, 'n_positions': 8192, 'pad_key_length': True,
    'pre_allocate_kv_cache': False, 'resid_pdrop': 0.1, 'scale_attention_softmax_in_fp32': True,
    'scale_attn_weights': True, 'validate_runner_input': True, 'vocab_size': 49_152, **_SUMMARY,
  },
  'phi-2': {
    'model_type': 'phi', 'architectures': ['PhiForCausalLM'], 'attention_dropout': 0.0,
    'embd_pdrop': 0.0, 'hidden_act': 'gelu_new', 'hidden_size': 2560, 'intermediate_size': 10_240,
    'layer_norm_eps': 1e-5, 'max_position_embeddings': 2048, 'num_attention_heads': 32,
    'num_hidden_layers': 32, 'num_key_value_heads': 32, 'partial_rotary_factor': 0.4,
    'qk_layernorm': False, 'resid_pdrop': 0.1, 'rope_scaling': None, 'rope_theta': 10000.0,
    'tie_word_embeddings': False, 'vocab_size': 51_200,
  },
  'command-r-35b': {
    'model_type': 'cohere', 'architectures': ['CohereForCausalLM'], 'attention_bias': False,
    'attention_dropout': 0.0, 'hidden_act': 'silu', 'hidden_size': 8192,
    'intermediate_size': 22_528, 'layer_norm_eps': 1e-5, 'logit_scale': 0.0625,
    'max_position_embeddings': 8192, 'model_max_length': 131_072, 'num_attention_heads': 64,
    'num_hidden_layers': 40, 'num_key_value_heads': 64, 'pretraining_tp': 1,
    'rope_theta': 8000000.0, 'tie_word_embeddings': True, 'use_qk_norm': False,
    'vocab_size': 256_000,
  },
  'command-r7b': {
    'model_type': 'cohere2', 'architectures': ['Cohere2ForCausalLM'], '_sliding_window_pattern': 4,
    'attention_bias': False, 'attention_dropout': 0.0, 'head_dim': 128, 'hidden_act': 'silu',
    'hidden_size': 4096, 'intermediate_size': 14_336, 'layer_norm_eps': 1e-5, 'layer_switch': 4,
    'logit_scale': 0.25, 'max_position_embeddings': 132_096, 'num_attention_heads': 32,
    'num_hidden_layers': 32, 'num_key_value_heads': 8,
    'order_of_interleaved_layers': 'local_attn_first', 'position_embedding_type': 'rope_gptj',
    'rope_scaling': None, 'rope_theta': 50_000, 'rotary_pct': 1.0, 'sliding_window': 4096,
    'sliding_window_pattern': 4, 'use_embedding_sharing': True, 'use_gated_activation': True,
    'use_parallel_block': True, 'use_parallel_embedding': True, 'vocab_size': 256_000,
  },
  'stablelm2-12b': {
    'model_type': 'stablelm', 'architectures': ['StableLmForCausalLM'], 'hidden_act': 'silu',
    'hidden_size': 5120, 'intermediate_size': 13_824, 'layer_norm_eps': 1e-5,
    'max_position_embeddings': 4096, 'num_attention_heads': 32, 'num_hidden_layers': 40,
    'num_key_value_heads': 8, 'partial_rotary_factor': 0.25, 'qk_layernorm': True,
    'rope_theta': 10_000, 'tie_word_embeddings': False, 'use_parallel_residual': True,
    'use_qkv_bias': False, 'vocab_size': 100_352,
  },
}  # fmt: skip


@pytest.mark.parametrize('name', CONFIGS)
def test_repository_config_matches_the_zoo(name):
  found = published(CONFIGS[name])
  assert flattened(normalised(found.spec)) == flattened(normalised(zoo.get(name)))


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('gpt-neo-1.3b', {'num_layers': 23}, 'attention_types has 24 layers. Expected num_layers=23'),
    ('gpt-neo-1.3b', {'attention_types': [[['far'], 24]]}, "attention_types: unknown value 'far'"),
    (
      'opt-1.3b',
      {'_remove_final_layer_norm': True},
      '_remove_final_layer_norm is True. Expected False',
    ),
    ('falcon-40b', {'parallel_attn': False}, 'parallel_attn is False. Expected True'),
    ('falcon-40b', {'num_ln_in_parallel_attn': 3}, 'num_ln_in_parallel_attn is 3. Expected 1'),
    ('mpt-7b', {'attn_config': {'qk_ln': True}}, 'attn_config: qk_ln is True. Expected False'),
    (
      'command-r7b',
      {'use_gated_activation': False},
      'use_gated_activation is False. Expected True',
    ),
  ],
)
def test_unsupported_options_raise_errors(name, changes, message):
  with pytest.raises(errors.UserError, match=message):
    published({**CONFIGS[name], **changes})
