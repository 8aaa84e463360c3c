"""Checkpoints of EXAONE 4: Llama's names, with norms after the branches."""

from tfm.zoo import exaone4
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import AFTER, NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Exaone4', exaone4.read, exaone4.write, {**NAMES, **AFTER}, tops=DECODER)
