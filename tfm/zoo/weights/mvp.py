"""Checkpoints of MVP: BART's names."""

from tfm.zoo import bart, mvp
from tfm.zoo.weights.bart import NAMES, TIED, TOPS
from tfm.zoo.weights.family import Family

FAMILY = Family(
  'Mvp', mvp.read, bart.write_stacks, NAMES, 'model.', 'ForConditionalGeneration', TOPS, TIED,
  (r'^final_logits_bias$',),
)  # fmt: skip
