"""Checkpoints of Longformer: RoBERTa's names, and projections for global tokens.

Its classes for sequences, questions and choices are not supported: they select global tokens on
their own.
"""

from tfm.zoo import longformer
from tfm.zoo.weights import bert, roberta
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import renamed

_LAYER = 'longformer.encoder.layer.*.attention.self'
NAMES: Names = {
  **renamed(roberta.NAMES, 'roberta.', 'longformer.'),
  '*/mixer/global_q': f'{_LAYER}.query_global',
  '*/mixer/global_k': f'{_LAYER}.key_global',
  '*/mixer/global_v': f'{_LAYER}.value_global',
}
TOPS = {name: bert.CLASSES[name] for name in ('ForTokenClassification', 'Model')}
FAMILY = Family(
  'Longformer', longformer.read, longformer.write, NAMES, 'longformer.', 'ForMaskedLM', TOPS,
  ('lm_head.decoder.weight',), roberta.IGNORED,
)  # fmt: skip
