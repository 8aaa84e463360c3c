"""Checkpoints of GLM: Llama's names, with fused gate and up projections."""

from tfm.zoo import glm
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Glm', glm.read, glm.write, {**llama.NAMES, **llama.GATE_UP}, tops=DECODER)
