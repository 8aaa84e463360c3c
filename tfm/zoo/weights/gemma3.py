"""Checkpoints of Gemma 3 text models: Gemma 2's names."""

from tfm.zoo import gemma3
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.gemma2 import NAMES
from tfm.zoo.weights.tops import DECODER

#: The classes are Gemma3TextForSequenceClassification and Gemma3TextModel.
TOPS = {f'Text{ending}': top for ending, top in DECODER.items() if 'Sequence' in ending}
FAMILY = Family('Gemma3', gemma3.read, gemma3.write, NAMES, tops=TOPS, body='TextModel')
