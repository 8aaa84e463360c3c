"""Checkpoints of Phi."""

from tfm.zoo import phi
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  '*/mixer/o': 'model.layers.*.self_attn.dense',
  '*/mixer/q_norm': 'model.layers.*.self_attn.q_layernorm',
  '*/mixer/k_norm': 'model.layers.*.self_attn.k_layernorm',
  '*/ffn/up': 'model.layers.*.mlp.fc1',
  '*/ffn/down': 'model.layers.*.mlp.fc2',
  '*/norm': 'model.layers.*.input_layernorm',
  'norm': 'model.final_layernorm',
  'head/bias': Whole('lm_head.bias'),
}

FAMILY = Family('Phi', phi.read, phi.write, NAMES, tops=DECODER)
