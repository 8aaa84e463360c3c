"""Toy configs of BART variants in transformers."""

from tests.hub.published import SIZES, Case
from tests.hub.seq2seq import BART, BIAS

# The class ignores token types.
_LED = {
  **{n: x for n, x in BART.items() if n != 'max_position_embeddings'}, 'attention_window': [4, 6],
  'max_encoder_position_embeddings': 40, 'max_decoder_position_embeddings': 32,
}  # fmt: skip
_ENCODER = {**SIZES, 'model_type': 'bert', 'type_vocab_size': 1}
_DECODER = {**_ENCODER, 'num_attention_heads': 2, 'is_decoder': True, 'add_cross_attention': True}
_ROBERTA = {'model_type': 'roberta', 'pad_token_id': 0}
#: The pooler of the encoder is unused.
_POOLER = r'^encoder\.pooler'

CASES = {
  'blenderbot-small': Case(
    'BlenderbotSmallConfig', 'BlenderbotSmallForConditionalGeneration', BART, **BIAS, whole=True
  ),
  'plbart': Case('PLBartConfig', 'PLBartForConditionalGeneration', BART, **BIAS),
  'plbart-sequence': Case(
    'PLBartConfig', 'PLBartForSequenceClassification', {**BART, 'num_labels': 3}, left=False,
  ),
  'mvp': Case('MvpConfig', 'MvpForConditionalGeneration', BART, **BIAS),
  'mvp-sequence': Case(
    'MvpConfig', 'MvpForSequenceClassification', {**BART, 'num_labels': 3}, left=False,
  ),
  'mvp-questions': Case('MvpConfig', 'MvpForQuestionAnswering', BART, left=False),
  'bert2bert': Case(
    'EncoderDecoderConfig', 'EncoderDecoderModel', {'encoder': _ENCODER, 'decoder': _DECODER},
    left=False, idle=_POOLER, whole=True,
  ),
  'bert2roberta': Case(
    'EncoderDecoderConfig', 'EncoderDecoderModel',
    {'encoder': _ENCODER, 'decoder': {**_DECODER, **_ROBERTA}}, left=False, idle=_POOLER,
  ),
  'roberta2bert': Case(
    'EncoderDecoderConfig', 'EncoderDecoderModel',
    {'encoder': {**_ENCODER, **_ROBERTA}, 'decoder': _DECODER}, left=False, idle=_POOLER, first=1,
  ),
  'led': Case('LEDConfig', 'LEDForConditionalGeneration', _LED, **BIAS, whole=True),
  'led-questions': Case('LEDConfig', 'LEDForQuestionAnswering', _LED, left=False),
  'led-body': Case('LEDConfig', 'LEDModel', _LED, left=False),
}  # fmt: skip
