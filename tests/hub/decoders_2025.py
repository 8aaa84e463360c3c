"""Toy configs of BitNet, Gemma 3n and MiniMax in transformers."""

from tests.hub.published import SIZES, Case, K, V

_GQA = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0}
_GEMMA3N = {
  **_GQA, 'head_dim': 12, 'sliding_window': 4, 'vocab_size_per_layer_input': 50,
  'hidden_size_per_layer_input': 12,
  'laurel_rank': 6, 'altup_num_inputs': 3,
}  # fmt: skip
_MINIMAX = {**_GQA, 'num_local_experts': 4}
#: Buffers that transformers computes from the decay rates.
_DECAYS = r'(query|key|diagonal)_decay$'


def _bitnet(fields: dict, **case) -> Case:
  return Case('BitNetConfig', 'BitNetForCausalLM', {**_GQA, **fields}, **case)


def _gemma3n(fields: dict, **case) -> Case:
  return Case(
    'Gemma3nTextConfig', 'Gemma3nForCausalLM', {**_GEMMA3N, **fields}, streams=True, **case
  )


def _minimax(fields: dict, ending: str = 'ForCausalLM', **case) -> Case:
  return Case(
    'MiniMaxConfig', f'MiniMax{ending}', {**_MINIMAX, **fields}, merged=True, idle=_DECAYS, **case
  )


CASES = {
  'bitnet': _bitnet({'tie_word_embeddings': True}, whole=True),
  'bitnet-biases': _bitnet({'attention_bias': True, 'hidden_act': 'silu'}),
  'gemma3n': _gemma3n({
    'num_hidden_layers': 6, 'num_kv_shared_layers': 2,
    'layer_types': ['sliding_attention', 'full_attention'] * 3,
    # Entry 0 is for padding, without a gradient in PyTorch, and for tokens outside the table.
    'vocab_size_per_layer_input': V, 'activation_sparsity_pattern': [0.9, 0.5] + [0.0] * 4,
    'intermediate_size': [48, 48, 40, 40, 32, 32],
  }, whole=True),
  'gemma3n-own-keys': _gemma3n({'num_kv_shared_layers': 0, 'tie_word_embeddings': False}),
  'gemma3n-biases': _gemma3n({
    'num_hidden_layers': 4, 'num_kv_shared_layers': 3, 'attention_bias': True,
    'layer_types': ['full_attention'] * 4,
    'hidden_activation': 'silu',
  }),
  'minimax': _minimax({
    'num_hidden_layers': 4, 'head_dim': 12, 'block_size': 5, 'mlp_alpha_factor': 0.5,
    'mlp_beta_factor': 2,
    'full_attn_alpha_factor': 1.5, 'full_attn_beta_factor': 0.5, 'linear_attn_alpha_factor': 0.75,
    'linear_attn_beta_factor': 1.25,
    'layer_types': ['linear_attention', 'linear_attention', 'full_attention', 'linear_attention'],
  }, whole=True),
  'minimax-windows': _minimax({'sliding_window': 5, 'tie_word_embeddings': True}),
  'minimax-classifier': _minimax({'num_labels': 3}, 'ForSequenceClassification'),
}  # fmt: skip
