"""Toy configs of decoders in transformers."""

from tests.hub.published import SIZES, Case, D, F, K, L, N, V

_LLAMA3 = {
  'rope_type': 'llama3', 'rope_theta': 1e4, 'factor': 8.0, 'low_freq_factor': 1.0,
  'high_freq_factor': 4.0, 'original_max_position_embeddings': 16,
}  # fmt: skip
_GPT2 = {'vocab_size': V, 'n_embd': D, 'n_layer': L, 'n_head': N, 'n_positions': 64}
_BLOOM = {'vocab_size': V, 'hidden_size': D, 'n_layer': L, 'n_head': N}
_LABELS = {'num_labels': 3, 'pad_token_id': 0}
_NEO = {
  'vocab_size': V, 'hidden_size': D, 'num_layers': 3, 'num_heads': N, 'max_position_embeddings': 64,
  'window_size': 4, 'attention_types': [[['global', 'local'], 1], [['local'], 1]],
}  # fmt: skip
_ROPE = {'rope_type': 'default', 'rope_theta': 1e4}
# With padding token 1, transformers gives its embedding no gradient.
_OPT = {**SIZES, 'ffn_dim': F, 'pad_token_id': 0}
del _OPT['intermediate_size']
_FALCON = {**_OPT, 'ffn_hidden_size': F}
del _FALCON['ffn_dim']
_MPT = {'vocab_size': V, 'd_model': D, 'n_layers': L, 'max_seq_len': 64}
_COHERE2 = {**SIZES, 'num_hidden_layers': 5, 'num_key_value_heads': K, 'sliding_window': 4}

CASES = {
  'gpt2': Case('GPT2Config', 'GPT2LMHeadModel', _GPT2),
  'gpt2-classifier': Case(
    'GPT2Config', 'GPT2ForSequenceClassification', {**_GPT2, **_LABELS}, whole=True,
  ),
  'llama': Case('LlamaConfig', 'LlamaForCausalLM', {
    **SIZES, 'num_key_value_heads': K, 'rope_parameters': _LLAMA3,
  }),
  'llama-tied': Case('LlamaConfig', 'LlamaForCausalLM', {
    **SIZES, 'num_key_value_heads': 1, 'tie_word_embeddings': True, 'attention_bias': True,
    'mlp_bias': True, 'head_dim': 16,
  }),
  'llama-body': Case('LlamaConfig', 'LlamaModel', {**SIZES, 'intermediate_size': F}),
  'gpt2-tokens': Case('GPT2Config', 'GPT2ForTokenClassification', {**_GPT2, **_LABELS}, whole=True),
  'gpt': Case('OpenAIGPTConfig', 'OpenAIGPTLMHeadModel', _GPT2),
  'gpt-classifier': Case('OpenAIGPTConfig', 'OpenAIGPTForSequenceClassification', {
    **_GPT2, **_LABELS, 'afn': 'relu',
  }),
  'gpt-neo': Case('GPTNeoConfig', 'GPTNeoForCausalLM', _NEO),
  'gpt-neo-spans': Case('GPTNeoConfig', 'GPTNeoForQuestionAnswering', {
    **_NEO, 'intermediate_size': F,
  }),
  'gptj': Case('GPTJConfig', 'GPTJForCausalLM', {**_GPT2, 'rotary_dim': 4}),
  'gptj-tied': Case('GPTJConfig', 'GPTJForCausalLM', {
    **_GPT2, 'rotary_dim': 8, 'n_inner': F, 'tie_word_embeddings': True,
  }),
  'codegen': Case('CodeGenConfig', 'CodeGenForCausalLM', {**_GPT2, 'n_head': 8, 'rotary_dim': 2}),
  # The head has another name in files.
  'gpt-neox': Case('GPTNeoXConfig', 'GPTNeoXForCausalLM', SIZES, merged=True),
  'gpt-neox-in-steps': Case('GPTNeoXConfig', 'GPTNeoXForCausalLM', {
    **SIZES, 'use_parallel_residual': False, 'attention_bias': False, 'tie_word_embeddings': True,
    'rope_parameters': {**_ROPE, 'partial_rotary_factor': 1.0},
  }),
  'gpt-neox-tokens': Case('GPTNeoXConfig', 'GPTNeoXForTokenClassification', {**SIZES, **_LABELS}),
  'opt': Case('OPTConfig', 'OPTForCausalLM', _OPT),
  'opt-post': Case('OPTConfig', 'OPTForCausalLM', {
    **_OPT, 'do_layer_norm_before': False, 'enable_bias': False, 'tie_word_embeddings': False,
  }, whole=True),
  'opt-narrow': Case('OPTConfig', 'OPTForCausalLM', {
    **_OPT, 'do_layer_norm_before': False, 'word_embed_proj_dim': 20,
  }, whole=True),
  'opt-narrow-classifier': Case('OPTConfig', 'OPTForSequenceClassification', {
    **_OPT, **_LABELS, 'word_embed_proj_dim': 20,
  }),
  'opt-body': Case('OPTConfig', 'OPTModel', _OPT),
  'bloom': Case('BloomConfig', 'BloomForCausalLM', _BLOOM),
  'bloom-classifier': Case('BloomConfig', 'BloomForSequenceClassification', {
    **_BLOOM, **_LABELS, 'n_head': 2,
  }),
  'mpt': Case('MptConfig', 'MptForCausalLM', {**_MPT, 'n_heads': 4}),
  'mpt-clipped': Case('MptConfig', 'MptForCausalLM', {
    **_MPT, 'd_model': 48, 'n_heads': 6, 'attn_config': {'clip_qkv': 0.5, 'softmax_scale': 0.3},
  }),
  'falcon-7b': Case('FalconConfig', 'FalconForCausalLM', _FALCON),
  'falcon-40b': Case('FalconConfig', 'FalconForCausalLM', {
    **_FALCON, 'new_decoder_architecture': True, 'num_kv_heads': K, 'bias': True,
    'tie_word_embeddings': False,
  }),
  'falcon-11b': Case('FalconConfig', 'FalconForCausalLM', {
    **_FALCON, 'new_decoder_architecture': True, 'num_kv_heads': K, 'num_ln_in_parallel_attn': 1,
  }),
  # Without a fused kernel, transformers adds the biases twice.
  'falcon-rw': Case('FalconConfig', 'FalconForCausalLM', {
    **_FALCON, 'alibi': True, 'multi_query': False, 'parallel_attn': False, 'bias': True,
  }, attend='sdpa'),
  'starcoder': Case('GPTBigCodeConfig', 'GPTBigCodeForCausalLM', _GPT2),
  'gpt-bigcode-mha': Case('GPTBigCodeConfig', 'GPTBigCodeForCausalLM', {
    **_GPT2, 'multi_query': False, 'n_inner': F,
  }),
  'phi': Case('PhiConfig', 'PhiForCausalLM', SIZES),
  'phi-grouped': Case('PhiConfig', 'PhiForCausalLM', {
    **SIZES, 'num_key_value_heads': K, 'qk_layernorm': True, 'tie_word_embeddings': True,
  }),
  'cohere': Case('CohereConfig', 'CohereForCausalLM', {
    **SIZES, 'num_key_value_heads': K, 'use_qk_norm': True,
  }),
  'palm': Case('CohereConfig', 'CohereForCausalLM', {
    **SIZES, 'num_key_value_heads': 1, 'logit_scale': D**-0.5,
  }),
  'cohere2': Case('Cohere2Config', 'Cohere2ForCausalLM', _COHERE2),
  'stablelm': Case('StableLmConfig', 'StableLmForCausalLM', {
    **SIZES, 'num_key_value_heads': N, 'use_qkv_bias': True,
  }),
  'stablelm2-12b': Case('StableLmConfig', 'StableLmForCausalLM', {
    **SIZES, 'num_key_value_heads': K, 'qk_layernorm': True, 'use_parallel_residual': True,
    'hidden_act': 'gelu',
  }),
  'nemotron': Case('NemotronConfig', 'NemotronForCausalLM', {
    **SIZES, 'num_key_value_heads': K, 'head_dim': 16,
  }),
  'nemotron-classifier': Case('NemotronConfig', 'NemotronForSequenceClassification', {
    **SIZES, **_LABELS, 'num_key_value_heads': 1, 'mlp_bias': True, 'attention_bias': True,
  }),
}  # fmt: skip
