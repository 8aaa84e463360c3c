"""Checkpoints of XLM-R XL: RoBERTa's names, except norms."""

from tfm.zoo import roberta as zoo_roberta
from tfm.zoo import xlm_roberta_xl
from tfm.zoo.weights import roberta
from tfm.zoo.weights.family import Family, Names

NAMES: Names = {
  **roberta.NAMES,
  '*/mixer_norm': 'roberta.encoder.layer.*.attention.self_attn_layer_norm',
  '*/ffn_norm': 'roberta.encoder.layer.*.LayerNorm',
  'norm': 'roberta.encoder.LayerNorm',
}
FAMILY = Family(
  'XLMRobertaXL', xlm_roberta_xl.read, zoo_roberta.write, NAMES, 'roberta.', 'ForMaskedLM',
  roberta.TOPS,
  ('lm_head.decoder.weight',), roberta.IGNORED,
)  # fmt: skip
