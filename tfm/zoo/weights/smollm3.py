"""Checkpoints of SmolLM3: Llama's names."""

from tfm.zoo import smollm3
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('SmolLM3', smollm3.read, smollm3.write, NAMES, tops=DECODER)
