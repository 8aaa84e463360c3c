"""Checkpoints of Ministral 3: Llama's names."""

from tfm.zoo import ministral3
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Ministral3', ministral3.read, ministral3.write, NAMES, tops=DECODER)
