"""Decoders with projections that round, or with decaying states, of transformers at toy size."""

from tests.hub.published import SIZES, Case, K

_GQA = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0}
#: Tables that transformers computes from the rates of decay.
_DECAYS = r'(query|key|diagonal)_decay$'

CASES = {
  'bitnet': Case('BitNetConfig', 'BitNetForCausalLM', {**_GQA, 'tie_word_embeddings': True}, whole=True),
  'bitnet-biases': Case('BitNetConfig', 'BitNetForCausalLM', {**_GQA, 'attention_bias': True, 'hidden_act': 'silu'}),
  'minimax': Case(
    'MiniMaxConfig',
    'MiniMaxForCausalLM',
    {
      **_GQA,
      'num_hidden_layers': 4,
      'num_local_experts': 4,
      'head_dim': 12,
      'block_size': 5,
      'full_attn_alpha_factor': 1.5,
      'full_attn_beta_factor': 0.5,
      'linear_attn_alpha_factor': 0.75,
      'linear_attn_beta_factor': 1.25,
      'mlp_alpha_factor': 0.5,
      'mlp_beta_factor': 2,
      'layer_types': ['linear_attention', 'linear_attention', 'full_attention', 'linear_attention'],
    },
    merged=True,
    whole=True,
    idle=_DECAYS,
  ),
  'minimax-windows': Case(
    'MiniMaxConfig',
    'MiniMaxForCausalLM',
    {
      **_GQA,
      'num_local_experts': 4,
      'sliding_window': 5,
      'tie_word_embeddings': True,
    },
    merged=True,
    idle=_DECAYS,
  ),
  'minimax-classifier': Case(
    'MiniMaxConfig', 'MiniMaxForSequenceClassification', {**_GQA, 'num_labels': 3}, merged=True, idle=_DECAYS
  ),
}
