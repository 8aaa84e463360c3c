"""Checkpoints of LUKE without its entity modules: RoBERTa's names."""

from tfm.zoo import luke
from tfm.zoo import roberta as zoo_roberta
from tfm.zoo.weights import bert, roberta
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole, renamed

NAMES: Names = {
  **renamed(roberta.NAMES, 'roberta.', 'luke.'),
  'head/head': 'lm_head.decoder',
  'head/bias': Whole('lm_head.decoder.bias'),
}
FAMILY = Family(
  'Luke', luke.read, zoo_roberta.write, NAMES, 'luke.', 'ForMaskedLM', bert.CLASSES, (),
  (r'position_ids$', r'^lm_head\.bias$', r'pooler\.dense\.', r'entity_embeddings\.',
   r'\.(w2e|e2w|e2e)_query\.',
   r'^entity_predictions\.'),
)  # fmt: skip
