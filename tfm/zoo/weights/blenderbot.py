"""Checkpoints of Blenderbot: BART's names."""

from tfm.zoo import bart, blenderbot
from tfm.zoo.weights.bart import NAMES, TIED
from tfm.zoo.weights.family import Family

FAMILY = Family(
  'Blenderbot', blenderbot.read, bart.write_stacks, NAMES, 'model.', 'ForConditionalGeneration',
  tied=TIED, ignored=(r'^final_logits_bias$',),
)  # fmt: skip
