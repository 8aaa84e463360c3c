"""Checkpoints of Qwen3: Llama's names and two more norms per layer."""

from tfm.zoo import qwen3
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Qwen3', qwen3.read, qwen3.write, NAMES, tops=DECODER)
