"""Checkpoints of CWM: Llama's names."""

from tfm.zoo import cwm
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES

FAMILY = Family('Cwm', cwm.read, cwm.write, NAMES)
