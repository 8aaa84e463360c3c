"""Checkpoints of Nemotron: Llama's names."""

from tfm.zoo import nemotron
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.tops import DECODER

FAMILY = Family('Nemotron', nemotron.read, nemotron.write, llama.NAMES, tops=DECODER)
