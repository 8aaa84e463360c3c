"""Checkpoints of UMT5: T5's names."""

from tfm.zoo import umt5
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.t5 import IGNORED, TIED, TOPS, names

FAMILY = Family(
  'UMT5', umt5.read, umt5.write, names, '', 'ForConditionalGeneration', TOPS, TIED, IGNORED
)
