"""Checkpoints of both generations of Cohere: Llama's names, with one norm per layer."""

from tfm.zoo import cohere, cohere2
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names

NAMES: Names = {
  **llama.NAMES,
  '*/norm': 'model.layers.*.input_layernorm',
  '*/mixer/q_norm': 'model.layers.*.self_attn.q_norm',
  '*/mixer/k_norm': 'model.layers.*.self_attn.k_norm',
}

FAMILY = Family('Cohere', cohere.read, cohere.write, NAMES)
SECOND = Family('Cohere2', cohere2.read, cohere2.write, NAMES)
