"""Checkpoints of dots.llm1: Llama's attention and DeepSeek-V3's experts."""

from tfm.zoo import dots1
from tfm.zoo.weights import deepseek, llama
from tfm.zoo.weights.family import Family

FAMILY = Family('Dots1', dots1.read, dots1.write, {**llama.NAMES, **deepseek.EXPERTS})
