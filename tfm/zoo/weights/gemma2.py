"""Checkpoints of Gemma 2: Llama's names and two more norms per layer."""

from tfm.zoo import gemma2
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  '*/mixer_post_norm': 'model.layers.*.post_attention_layernorm',
  '*/ffn_norm': 'model.layers.*.pre_feedforward_layernorm',
  '*/ffn_post_norm': 'model.layers.*.post_feedforward_layernorm',
}

FAMILY = Family('Gemma2', gemma2.read, gemma2.write, NAMES, tops=DECODER)
