"""Encoder-decoders of transformers at toy size."""

from hub.published import Case, D, F, L, N, V

_T5 = {'vocab_size': V, 'd_model': D, 'd_kv': 6, 'd_ff': F, 'num_layers': L, 'num_heads': N, 'dropout_rate': 0.0}

CASES = {
  't5': Case('T5Config', 'T5ForConditionalGeneration', _T5),
  't5-gated': Case('T5Config', 'T5ForConditionalGeneration', {
    **_T5, 'feed_forward_proj': 'gated-gelu', 'num_decoder_layers': 3,
  }),
}  # fmt: skip
