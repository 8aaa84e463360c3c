"""Checkpoints of Ministral: Llama's names."""

from tfm.zoo import ministral
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Ministral', ministral.read, ministral.write, NAMES, tops=DECODER)
