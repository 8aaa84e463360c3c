"""Checkpoints of pre-norm RoBERTa: RoBERTa's names, except norms."""

from tfm.zoo import roberta as zoo_roberta
from tfm.zoo import roberta_prelayernorm
from tfm.zoo.weights import roberta
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import renamed

_BODY = 'roberta_prelayernorm'
NAMES: Names = {
  **renamed(roberta.NAMES, 'roberta.', f'{_BODY}.'),
  '*/mixer_norm': f'{_BODY}.encoder.layer.*.attention.LayerNorm',
  '*/ffn_norm': f'{_BODY}.encoder.layer.*.intermediate.LayerNorm',
  'norm': f'{_BODY}.LayerNorm',
}
FAMILY = Family(
  'RobertaPreLayerNorm', roberta_prelayernorm.read, zoo_roberta.write, NAMES, f'{_BODY}.',
  'ForMaskedLM', roberta.TOPS,
  ('lm_head.decoder.weight',), roberta.IGNORED,
)  # fmt: skip
