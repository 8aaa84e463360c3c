"""Checkpoints of Youtu: DeepSeek's names of latent attention."""

from tfm.zoo import youtu
from tfm.zoo.weights import deepseek
from tfm.zoo.weights.family import Family

FAMILY = Family('Youtu', youtu.read, youtu.write, deepseek.names)
