"""Checkpoints of Gemma: Llama's names."""

from tfm.zoo import gemma
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Gemma', gemma.read, gemma.write, NAMES, tops=DECODER)
