"""OLMo 2's checkpoints: Llama's names, with the norms after the branches."""

from tfm.zoo import olmo2
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import AFTER, NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Olmo2', olmo2.read, olmo2.write, {**NAMES, **AFTER}, tops=DECODER)
