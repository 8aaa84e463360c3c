"""Checkpoints of OLMo 3: OLMo 2's names."""

from tfm.zoo import olmo3
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import AFTER, NAMES
from tfm.zoo.weights.tops import DECODER

#: transformers has a sequence classifier and no token classifier.
TOPS = {'ForSequenceClassification': DECODER['ForSequenceClassification']}
FAMILY = Family('Olmo3', olmo3.read, olmo3.write, {**NAMES, **AFTER}, tops=TOPS)
