"""Checkpoints of LED: BART's names, except the encoder's attention."""

from tfm.zoo import led
from tfm.zoo.weights import bart
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import renamed

_LAYER = 'led.encoder.layers.*.self_attn'
_WORDS = {'q': 'query', 'k': 'key', 'v': 'value'}
NAMES: Names = {
  **renamed(bart.NAMES, 'model.', 'led.'),
  **{f'encoder/*/mixer/{n}': f'{_LAYER}.longformer_self_attn.{word}' for n, word in _WORDS.items()},
  **{
    f'encoder/*/mixer/global_{n}': f'{_LAYER}.longformer_self_attn.{word}_global'
    for n, word in _WORDS.items()
  },
  'encoder/*/mixer/o': f'{_LAYER}.output',
}
FAMILY = Family(
  'LED', led.read, led.write, NAMES, 'led.', 'ForConditionalGeneration',
  {'ForQuestionAnswering': bart.TOPS['ForQuestionAnswering']},
  ('lm_head.weight', 'led.encoder.embed_tokens.weight', 'led.decoder.embed_tokens.weight'),
  (r'^final_logits_bias$',),
)  # fmt: skip
