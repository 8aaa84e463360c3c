"""Checkpoints of OLMo: Llama's names, without norms."""

from tfm.zoo import olmo
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Olmo', olmo.read, olmo.write, NAMES, tops=DECODER)
