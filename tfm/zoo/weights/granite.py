"""Checkpoints of Granite: Llama's names."""

from tfm.zoo import granite
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES

FAMILY = Family('Granite', granite.read, granite.write, NAMES)
