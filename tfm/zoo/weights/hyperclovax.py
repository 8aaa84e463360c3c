"""Checkpoints of HyperCLOVA X: Llama's names and two more norms per layer."""

from tfm.zoo import hyperclovax
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names

NAMES: Names = {
  **llama.NAMES, '*/mixer_post_norm': 'model.layers.*.post_norm1',
  '*/ffn_post_norm': 'model.layers.*.post_norm2',
}  # fmt: skip

FAMILY = Family('HyperCLOVAX', hyperclovax.read, hyperclovax.write, NAMES)
