"""Checkpoints of Arcee: Llama's names."""

from tfm.zoo import arcee
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Arcee', arcee.read, arcee.write, NAMES, tops=DECODER)
