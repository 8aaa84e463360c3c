"""Qwen3's checkpoints: Llama's names, and two norms a layer more."""

from tfm.zoo import qwen3
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Qwen3', qwen3.read, qwen3.write, NAMES, tops=DECODER)
