"""Toy configs of speech models in transformers."""

from tests.hub.published import Case, D, F, L, N, T, V

_WHISPER = {
  'vocab_size': V, 'num_mel_bins': 10, 'd_model': D, 'encoder_layers': L, 'decoder_layers': 3,
  'encoder_attention_heads': N, 'decoder_attention_heads': 2, 'encoder_ffn_dim': F,
  'decoder_ffn_dim': 40, 'max_source_positions': T, 'max_target_positions': 32, 'pad_token_id': 0,
  'bos_token_id': 1, 'eos_token_id': 2, 'decoder_start_token_id': 1,
  'begin_suppress_tokens': [5, 2],
}  # fmt: skip

CASES = {
  'whisper': Case('WhisperConfig', 'WhisperForConditionalGeneration', _WHISPER, whole=True),
  'whisper-body': Case(
    'WhisperConfig', 'WhisperModel', {**_WHISPER, 'activation_function': 'relu'}
  ),
}
