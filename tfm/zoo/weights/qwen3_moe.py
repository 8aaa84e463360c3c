"""Checkpoints of Qwen3 mixtures."""

from tfm.zoo import qwen3_moe
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.tops import DECODER

FAMILY = Family(
  'Qwen3Moe', qwen3_moe.read, qwen3_moe.write, {**llama.NAMES, **llama.EXPERTS}, tops=DECODER
)
