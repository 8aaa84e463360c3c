"""Checkpoints of PLBART: BART's names."""

from tfm.zoo import bart, plbart
from tfm.zoo.weights.bart import NAMES, TIED, TOPS
from tfm.zoo.weights.family import Family

FAMILY = Family(
  'PLBart', plbart.read, bart.write_stacks, NAMES, 'model.', 'ForConditionalGeneration',
  {'ForSequenceClassification': TOPS['ForSequenceClassification']}, TIED, (r'^final_logits_bias$',),
)  # fmt: skip
