"""Toy configs of encoder-decoders in transformers."""

from tests.hub.published import Case, D, F, K, L, N, V

_T5 = {
  'vocab_size': V,
  'd_model': D,
  'd_kv': 6,
  'd_ff': F,
  'num_layers': L,
  'num_heads': N,
  'dropout_rate': 0.0,
}
_SWITCH = {
  **_T5, 'num_layers': 4, 'num_decoder_layers': 2, 'num_sparse_encoder_layers': 4,
  'num_sparse_decoder_layers': 1, 'num_experts': 4,
}  # fmt: skip
_GEMMA = {
  'vocab_size': V, 'hidden_size': D, 'intermediate_size': F, 'num_hidden_layers': 3,
  'num_attention_heads': N,
  'num_key_value_heads': K, 'head_dim': 6, 'sliding_window': 3, 'query_pre_attn_scalar': 5,
}  # fmt: skip
_T5GEMMA = {'encoder': _GEMMA, 'decoder': {**_GEMMA, 'num_hidden_layers': 2}, 'vocab_size': V}
BART = {
  'vocab_size': V, 'd_model': D, 'encoder_layers': L, 'decoder_layers': 3,
  'encoder_attention_heads': N, 'decoder_attention_heads': 2, 'encoder_ffn_dim': F,
  'decoder_ffn_dim': 40, 'max_position_embeddings': 32, 'pad_token_id': 0, 'bos_token_id': 1,
  'eos_token_id': 2, 'decoder_start_token_id': 0, 'forced_eos_token_id': None,
}  # fmt: skip
BIAS = {'buffers': ('final_logits_bias',), 'left': False}

CASES = {
  't5': Case('T5Config', 'T5ForConditionalGeneration', _T5),
  't5-gated': Case('T5Config', 'T5ForConditionalGeneration', {
    **_T5, 'feed_forward_proj': 'gated-gelu', 'num_decoder_layers': 3,
    'relative_attention_num_buckets': 8, 'relative_attention_max_distance': 10,
  }),
  't5-unscaled': Case('T5Config', 'T5ForConditionalGeneration', {
    **_T5, 'tie_word_embeddings': False,
  }),
  't5-encoder': Case('T5Config', 'T5EncoderModel', _T5),
  't5-body': Case('T5Config', 'T5Model', _T5),
  't5-sequence': Case('T5Config', 'T5ForSequenceClassification', {
    **_T5, 'num_labels': 3, 'eos_token_id': 2,
  }),
  't5-tokens': Case('T5Config', 'T5ForTokenClassification', {**_T5, 'num_labels': 5}),
  't5-questions': Case('T5Config', 'T5ForQuestionAnswering', _T5),
  'mt5': Case('MT5Config', 'MT5ForConditionalGeneration', _T5),
  'umt5': Case('UMT5Config', 'UMT5ForConditionalGeneration', {**_T5, 'num_decoder_layers': 3}),
  'umt5-encoder': Case('UMT5Config', 'UMT5EncoderModel', _T5),
  'longt5': Case('LongT5Config', 'LongT5ForConditionalGeneration', {**_T5, 'local_radius': 2}),
  'longt5-global': Case('LongT5Config', 'LongT5ForConditionalGeneration', {
    **_T5, 'local_radius': 2, 'global_block_size': 4, 'encoder_attention_type': 'transient-global',
  }, left=False, whole=True),
  'longt5-encoder': Case('LongT5Config', 'LongT5EncoderModel', {**_T5, 'local_radius': 20}),
  'switch': Case('SwitchTransformersConfig', 'SwitchTransformersForConditionalGeneration', _SWITCH),
  'switch-full': Case('SwitchTransformersConfig', 'SwitchTransformersForConditionalGeneration', {
    **_SWITCH, 'expert_capacity': 2, 'num_sparse_encoder_layers': 2,
  }, left=False),
  't5gemma': Case('T5GemmaConfig', 'T5GemmaForConditionalGeneration', _T5GEMMA),
  't5gemma-wide': Case('T5GemmaConfig', 'T5GemmaForConditionalGeneration', {
    **_T5GEMMA, 'encoder': {**_GEMMA, 'hidden_size': 40},
    'decoder': {**_GEMMA, 'num_hidden_layers': 2, 'cross_attention_hidden_size': 40},
  }, whole=True),
  'bart': Case('BartConfig', 'BartForConditionalGeneration', BART, **BIAS),
  'bart-scaled': Case('BartConfig', 'BartForConditionalGeneration', {
    **BART, 'scale_embedding': True, 'activation_function': 'relu',
  }, **BIAS),
  'bart-sequence': Case(
    'BartConfig', 'BartForSequenceClassification', {**BART, 'num_labels': 3}, left=False,
  ),
  'bart-questions': Case('BartConfig', 'BartForQuestionAnswering', BART, left=False),
  'bart-body': Case('BartConfig', 'BartModel', BART, left=False),
  'mbart': Case('MBartConfig', 'MBartForConditionalGeneration', BART, **BIAS),
  'mbart-sequence': Case(
    'MBartConfig', 'MBartForSequenceClassification', {**BART, 'num_labels': 2}, left=False,
  ),
  'pegasus': Case(
    'PegasusConfig', 'PegasusForConditionalGeneration', BART, kept='embed_positions', **BIAS,
  ),
  'blenderbot': Case('BlenderbotConfig', 'BlenderbotForConditionalGeneration', BART, **BIAS),
  'marian': Case('MarianConfig', 'MarianMTModel', {
    **BART, 'scale_embedding': True,
  }, kept='embed_positions', **BIAS),
  'marian-two-tables': Case('MarianConfig', 'MarianMTModel', {
    **BART, 'share_encoder_decoder_embeddings': False, 'decoder_vocab_size': V + 4,
  }, kept='embed_positions', **BIAS),
  'marian-untied': Case('MarianConfig', 'MarianMTModel', {
    **BART, 'share_encoder_decoder_embeddings': False, 'tie_word_embeddings': False,
  }, kept='embed_positions', **BIAS),
  'm2m_100': Case('M2M100Config', 'M2M100ForConditionalGeneration', BART),
  # With a cache, transformers has no causal mask and expects one token per step.
  'fsmt': Case('FSMTConfig', 'FSMTForConditionalGeneration', {
    **BART, 'use_cache': False, 'src_vocab_size': V + 3, 'tgt_vocab_size': V,
  }, kept='embed_positions'),
  'fsmt-tied': Case('FSMTConfig', 'FSMTForConditionalGeneration', {
    **BART, 'use_cache': False, 'src_vocab_size': V, 'tgt_vocab_size': V,
    'tie_word_embeddings': True,
  }, kept='embed_positions'),
}  # fmt: skip
