"""The checkpoints of GLM: Llama's names, with gate and up projection as one."""

from tfm.zoo import glm
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Glm', glm.read, glm.write, {**llama.NAMES, **llama.GATE_UP}, tops=DECODER)
