"""Checkpoints of mBART: BART's names."""

from tfm.zoo import bart, mbart
from tfm.zoo.weights.bart import NAMES, TIED, TOPS
from tfm.zoo.weights.family import Family

FAMILY = Family(
  'MBart', mbart.read, bart.write_stacks, NAMES, 'model.', 'ForConditionalGeneration', TOPS, TIED,
  (r'^final_logits_bias$',),
)  # fmt: skip
