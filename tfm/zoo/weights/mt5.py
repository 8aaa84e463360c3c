"""Checkpoints of mT5: T5's names."""

from tfm.zoo import mt5, t5
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.t5 import IGNORED, TIED, TOPS, names

FAMILY = Family(
  'MT5', mt5.read, t5.write_stacks, names, '', 'ForConditionalGeneration', TOPS, TIED, IGNORED
)
