"""Checkpoints of M2M-100: BART's names."""

from tfm.zoo import m2m_100
from tfm.zoo.weights.bart import NAMES, TIED
from tfm.zoo.weights.family import Family

FAMILY = Family(
  'M2M100', m2m_100.read, m2m_100.write, NAMES, 'model.', 'ForConditionalGeneration',
  tied=TIED, ignored=(r'embed_positions\.weights$',),
)  # fmt: skip
