"""Checkpoints of Jais 2: Llama's names."""

from tfm.zoo import jais2
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES

FAMILY = Family('Jais2', jais2.read, jais2.write, NAMES)
