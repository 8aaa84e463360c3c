"""Checkpoints of Blenderbot Small: BART's names."""

from tfm.zoo import bart, blenderbot_small
from tfm.zoo.weights.bart import NAMES, TIED
from tfm.zoo.weights.family import Family

FAMILY = Family(
  'BlenderbotSmall', blenderbot_small.read, bart.write_stacks, NAMES, 'model.',
  'ForConditionalGeneration',
  tied=TIED, ignored=(r'^final_logits_bias$',),
)  # fmt: skip
