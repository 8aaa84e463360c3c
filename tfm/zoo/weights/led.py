"""Checkpoints of LED: BART's names, except the encoder's attention."""

from tfm.zoo import led
from tfm.zoo.weights import bart
from tfm.zoo.weights.family import Family, Names, nested
from tfm.zoo.weights.rules import renamed

_ATTENTION = {
  'q': 'longformer_self_attn.query',
  'k': 'longformer_self_attn.key',
  'v': 'longformer_self_attn.value',
  'global_q': 'longformer_self_attn.query_global',
  'global_k': 'longformer_self_attn.key_global',
  'global_v': 'longformer_self_attn.value_global',
  'o': 'output',
}
NAMES: Names = {
  **renamed(bart.NAMES, 'model.', 'led.'),
  **nested(_ATTENTION, 'encoder/*/mixer/', 'led.encoder.layers.*.self_attn.'),
}
FAMILY = Family(
  'LED', led.read, led.write, NAMES, 'led.', 'ForConditionalGeneration',
  {'ForQuestionAnswering': bart.TOPS['ForQuestionAnswering']},
  ('lm_head.weight', 'led.encoder.embed_tokens.weight', 'led.decoder.embed_tokens.weight'),
  (r'^final_logits_bias$',),
)  # fmt: skip
