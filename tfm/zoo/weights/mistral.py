"""Checkpoints of Mistral: Llama's names."""

from tfm.zoo import mistral
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Mistral', mistral.read, mistral.write, NAMES, tops=DECODER)
