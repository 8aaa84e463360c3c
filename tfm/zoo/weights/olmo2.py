"""Checkpoints of OLMo 2: Llama's names, with norms after the branches."""

from tfm.zoo import olmo2
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import AFTER, NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Olmo2', olmo2.read, olmo2.write, {**NAMES, **AFTER}, tops=DECODER)
