"""Checkpoints of Helium: Llama's names."""

from tfm.zoo import helium
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Helium', helium.read, helium.write, NAMES, tops=DECODER)
