"""Checkpoints of MiniCPM3: DeepSeek's names of latent attention."""

from tfm.zoo import minicpm3
from tfm.zoo.weights import deepseek
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.tops import DECODER

TOPS = {'ForSequenceClassification': DECODER['ForSequenceClassification']}
FAMILY = Family('MiniCPM3', minicpm3.read, minicpm3.write, deepseek.names, tops=TOPS)
