"""Toy configs of further dense decoders in transformers."""

from tests.hub.published import SIZES, Case, D, F, K, L, N, V

_GQA = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0}
_LABELS = {'num_labels': 3, 'pad_token_id': 0}
_YARN = {
  'rope_type': 'yarn',
  'rope_theta': 5e5,
  'factor': 4.0,
  'original_max_position_embeddings': 16,
}
_DEFAULT = {'rope_type': 'default', 'rope_theta': 5e5}
_PATTERN = ['sliding_attention', 'full_attention', 'full_attention', 'sliding_attention']
_XGLM = {
  'vocab_size': V, 'd_model': D, 'num_layers': L, 'attention_heads': N, 'ffn_dim': F,
  'max_position_embeddings': 64, 'pad_token_id': 0,
}  # fmt: skip
_CTRL = {'vocab_size': V, 'n_embd': D, 'n_layer': L, 'n_head': N, 'dff': F, 'n_positions': 64}
_JAPANESE = {name: value for name, value in SIZES.items() if name != 'intermediate_size'}


def _of(stem: str, fields: dict, ending: str = 'ForCausalLM', **case) -> Case:
  return Case(f'{stem}Config', f'{stem}{ending}', fields, **case)


_LATENT = {
  **SIZES, 'num_hidden_layers': 3, 'num_key_value_heads': N, 'pad_token_id': 0, 'q_lora_rank': 20,
  'kv_lora_rank': 16,
  'qk_nope_head_dim': 8, 'qk_rope_head_dim': 4, 'v_head_dim': 12, 'dim_model_base': 8,
}  # fmt: skip
_YOUTU = {name: value for name, value in _LATENT.items() if name != 'dim_model_base'}
_MODERN = {
  **SIZES, 'num_hidden_layers': 5, 'local_attention': 8, 'pad_token_id': 0, 'bos_token_id': 1,
  'eos_token_id': 2, 'cls_token_id': 1, 'sep_token_id': 2,
}  # fmt: skip
_GPT2 = {'vocab_size': V, 'n_embd': D, 'n_layer': 3, 'n_head': N, 'n_positions': 64}

CASES = {
  'gpt2-scaled-by-layer': _of('GPT2', {
    **_GPT2, 'scale_attn_by_inverse_layer_idx': True, 'reorder_and_upcast_attn': True,
  }, 'LMHeadModel'),
  'gpt2-unscaled': _of('GPT2', {**_GPT2, 'scale_attn_weights': False}, 'LMHeadModel'),
  'gpt2-scaled-by-layer-only': _of('GPT2', {
    **_GPT2, 'scale_attn_weights': False, 'scale_attn_by_inverse_layer_idx': True,
  }, 'LMHeadModel'),
  'glm': _of('Glm', {**_GQA, 'head_dim': 8}),
  'glm-no-bias': _of('Glm', {
    **_GQA, 'head_dim': 12, 'attention_bias': False, 'tie_word_embeddings': True,
  }),
  'olmo3': _of('Olmo3', {
    **_GQA, 'num_hidden_layers': 5, 'sliding_window': 4, 'attention_bias': True,
    'rope_parameters': {'full_attention': _YARN, 'sliding_attention': _DEFAULT},
  }),
  'olmo3-pattern': _of('Olmo3', {
    **_GQA, 'num_hidden_layers': 4, 'sliding_window': 3, 'layer_types': _PATTERN,
    'rope_parameters': {'full_attention': _DEFAULT, 'sliding_attention': {
      **_DEFAULT, 'rope_theta': 1e4,
    }},
  }),
  'arcee': _of('Arcee', {**_GQA, 'head_dim': 12}),
  'arcee-biases': _of('Arcee', {
    **_GQA, 'attention_bias': True, 'mlp_bias': True, 'rope_parameters': _YARN,
  }),
  'helium': _of('Helium', {**_GQA, 'head_dim': 8}),
  'helium-biases': _of('Helium', {**_GQA, 'head_dim': 8, 'attention_bias': True, 'mlp_bias': True}),
  'seed-oss': _of('SeedOss', {**_GQA, 'head_dim': 12}),
  'seed-oss-biases': _of('SeedOss', {
    **_GQA, 'head_dim': 8, 'attention_out_bias': True, 'mlp_bias': True,
    'tie_word_embeddings': True,
  }),
  'ministral': _of('Ministral', {**_GQA, 'sliding_window': 4, 'head_dim': 12}),
  'ministral-pattern': _of('Ministral', {
    **_GQA, 'num_hidden_layers': 4, 'sliding_window': 4, 'head_dim': 8, 'layer_types': _PATTERN,
  }),
  'ministral3': _of('Ministral3', {
    **_GQA, 'head_dim': 8, 'rope_parameters': {
      **_YARN, 'original_max_position_embeddings': 4, 'beta_fast': 32.0, 'beta_slow': 1.0,
      'mscale': 1.0, 'mscale_all_dim': 1.0, 'llama_4_scaling_beta': 0.5,
    },
  }, whole=True),
  'ministral3-window': _of('Ministral3', {
    **_GQA, 'head_dim': 12, 'sliding_window': 4, 'tie_word_embeddings': True, 'rope_parameters': {
      **_YARN, 'llama_4_scaling_beta': 0.1,
    },
  }),
  'apertus': _of('Apertus', {**_GQA, 'attention_bias': True}, whole=True),
  'apertus-gelu': _of('Apertus', {**_GQA, 'hidden_act': 'gelu', 'rope_parameters': _DEFAULT}),
  'nanochat': _of('NanoChat', {**_GQA, 'attention_bias': True}, whole=True),
  'nanochat-uncapped': _of('NanoChat', {
    **SIZES, 'pad_token_id': 0, 'final_logit_softcapping': None, 'tie_word_embeddings': True,
  }),
  'hunyuan': _of('HunYuanDenseV1', {
    **_GQA, 'head_dim': 8,
    'rope_parameters': {'rope_type': 'dynamic', 'rope_theta': 1e4, 'alpha': 50.0, 'factor': 1.0},
  }, whole=True),
  'hunyuan-biases': _of('HunYuanDenseV1', {
    **_GQA, 'head_dim': 8, 'attention_bias': True, 'tie_word_embeddings': True,
  }),
  'minicpm3': _of('MiniCPM3', _LATENT, whole=True),
  'minicpm3-straight': _of('MiniCPM3', {
    **_LATENT, 'q_lora_rank': None, 'attention_bias': True, 'mlp_bias': True, 'scale_depth': None,
    'dim_model_base': None, 'tie_word_embeddings': False,
  }),
  'minicpm3-longrope': _of('MiniCPM3', {
    **_LATENT, 'rope_parameters': {
      'rope_type': 'longrope', 'rope_theta': 1e4, 'short_factor': [1.0, 1.5],
      'long_factor': [1.0, 3.0], 'original_max_position_embeddings': 64,
    },
  }),
  'cwm': _of('Cwm', {
    **_GQA, 'num_hidden_layers': 5, 'head_dim': 8, 'sliding_window': 4, 'rope_parameters': _YARN,
  }),
  'cwm-biases': _of('Cwm', {
    **_GQA, 'head_dim': 8, 'sliding_window': 4, 'mlp_bias': True,
    'layer_types': ['full_attention'] * 2, 'tie_word_embeddings': True,
  }),
  'hyperclovax': _of('HyperCLOVAX', {
    **_GQA, 'head_dim': 8, 'embedding_multiplier': 6.0, 'attention_multiplier': 0.25,
    'residual_multiplier': 0.3, 'logits_scaling': 0.125, 'attention_bias': True,
  }),
  'hyperclovax-pre-norm': _of('HyperCLOVAX', {**_GQA, 'use_post_norm': False, 'mlp_bias': True}),
  'jais2': _of('Jais2', _GQA, whole=True),
  'jais2-no-biases': _of('Jais2', {
    **_GQA, 'attention_bias': False, 'mlp_bias': False, 'tie_word_embeddings': True,
  }),
  'youtu': _of('Youtu', _YOUTU),
  'youtu-halves': _of('Youtu', {
    **_YOUTU, 'q_lora_rank': None, 'rope_interleave': False, 'attention_bias': True,
    'tie_word_embeddings': False,
  }),
  'vaultgemma': _of('VaultGemma', {
    **_GQA, 'num_hidden_layers': 4, 'head_dim': 8, 'sliding_window': 4,
  }),
  'persimmon': _of('Persimmon', SIZES, whole=True),
  'persimmon-no-norms': _of('Persimmon', {
    **SIZES, 'qk_layernorm': False, 'tie_word_embeddings': True, 'rope_parameters': _DEFAULT,
  }),
  'xglm': _of('XGLM', _XGLM, whole=True),
  'xglm-unscaled': _of('XGLM', {**_XGLM, 'scale_embedding': False, 'activation_function': 'relu'}),
  'biogpt': _of('BioGpt', {**SIZES, 'pad_token_id': 0}, whole=True),
  'biogpt-classifier': _of('BioGpt', {
    **SIZES, **_LABELS, 'scale_embedding': False,
  }, 'ForSequenceClassification'),
  'ctrl': _of('CTRL', _CTRL, 'LMHeadModel', whole=True),
  'gpt-neox-japanese': _of('GPTNeoXJapanese', {**_JAPANESE, 'num_hidden_layers': 3}, whole=True),
  'gpt-neox-japanese-part': _of('GPTNeoXJapanese', {
    **_JAPANESE, 'intermediate_multiple_size': 2, 'tie_word_embeddings': False,
    'rope_parameters': {**_DEFAULT, 'partial_rotary_factor': 0.5},
  }),
  'modernbert-decoder': _of('ModernBertDecoder', _MODERN, whole=True),
  'modernbert-decoder-options': _of('ModernBertDecoder', {
    **_MODERN, 'local_attention': 7, 'norm_bias': True, 'attention_bias': True, 'mlp_bias': True,
    'decoder_bias': False, 'classifier_bias': True, 'tie_word_embeddings': False,
  }),
  'modernbert-decoder-classifier': _of('ModernBertDecoder', {
    **_MODERN, 'num_labels': 3, 'classifier_bias': True,
  }, 'ForSequenceClassification'),
}  # fmt: skip

# Cached decoding steps have no token types.
_DECODER = {**SIZES, 'is_decoder': True, 'type_vocab_size': 1}
#: Encoders with a causal mask, which follow the encoder cases.
OF_ENCODERS = {
  'bert-decoder': _of('Bert', {**_DECODER}, 'LMHeadModel', whole=True),
  'bert-decoder-body': _of('Bert', {**_DECODER}, 'Model'),
  'roberta-decoder': _of('Roberta', {**_DECODER}, first=2),
  'camembert-decoder': _of('Camembert', {**_DECODER, 'hidden_act': 'relu'}, first=2),
  'electra-decoder': _of('Electra', {**_DECODER, 'embedding_size': 24}),
  'roformer-decoder': _of('RoFormer', _DECODER, kept='embed_positions'),
  'xlm-roberta-decoder': _of('XLMRoberta', {**_DECODER}, first=2),
}
