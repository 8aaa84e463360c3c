"""Checkpoints of ERNIE 4.5: Llama's names."""

from tfm.zoo import ernie4_5
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES

FAMILY = Family('Ernie4_5', ernie4_5.read, ernie4_5.write, NAMES)
