"""Checkpoints of GLM-4."""

from tfm.zoo import glm4
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  **llama.GATE_UP,
  '*/mixer_post_norm': 'model.layers.*.post_self_attn_layernorm',
  '*/ffn_post_norm': 'model.layers.*.post_mlp_layernorm',
}

FAMILY = Family('Glm4', glm4.read, glm4.write, NAMES, tops=DECODER)
