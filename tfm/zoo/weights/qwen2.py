"""Checkpoints of Qwen2: Llama's names and biases."""

from tfm.zoo import qwen2
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Qwen2', qwen2.read, qwen2.write, NAMES, tops=DECODER)
