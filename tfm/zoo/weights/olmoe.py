"""Checkpoints of OLMoE."""

from tfm.zoo import olmoe
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family

FAMILY = Family('Olmoe', olmoe.read, olmoe.write, {**llama.NAMES, **llama.EXPERTS})
