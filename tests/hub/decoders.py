"""Decoders of transformers at toy size."""

from hub.published import SIZES, Case, D, F, K, L, N, V

_LLAMA3 = {
  'rope_type': 'llama3', 'rope_theta': 1e4, 'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
  'original_max_position_embeddings': 16,
}  # fmt: skip
_GPT2 = {'vocab_size': V, 'n_embd': D, 'n_layer': L, 'n_head': N, 'n_positions': 64}

CASES = {
  'gpt2': Case('GPT2Config', 'GPT2LMHeadModel', _GPT2),
  'gpt2-classifier': Case('GPT2Config', 'GPT2ForSequenceClassification', {**_GPT2, 'num_labels': 3, 'pad_token_id': 0}),
  'llama': Case('LlamaConfig', 'LlamaForCausalLM', {**SIZES, 'num_key_value_heads': K, 'rope_parameters': _LLAMA3}),
  'llama-tied': Case('LlamaConfig', 'LlamaForCausalLM', {
    **SIZES, 'num_key_value_heads': 1, 'tie_word_embeddings': True, 'attention_bias': True, 'mlp_bias': True,
    'head_dim': 16,
  }),
  'llama-body': Case('LlamaConfig', 'LlamaModel', {**SIZES, 'intermediate_size': F}),
}  # fmt: skip
