"""Decoders with projections that round, or with decaying states, of transformers at toy size."""

from tests.hub.published import SIZES, Case, K

_GQA = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0}

CASES = {
  'bitnet': Case('BitNetConfig', 'BitNetForCausalLM', {**_GQA, 'tie_word_embeddings': True}, whole=True),
  'bitnet-biases': Case('BitNetConfig', 'BitNetForCausalLM', {**_GQA, 'attention_bias': True, 'hidden_act': 'silu'}),
}
