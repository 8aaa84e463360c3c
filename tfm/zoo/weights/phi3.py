"""Checkpoints of Phi-3: fused q, k and v, and fused gate and up projections."""

from tfm.zoo import phi3
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Fused
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  **llama.GATE_UP,
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): Fused('model.layers.*.self_attn.qkv_proj'),
}

FAMILY = Family('Phi3', phi3.read, phi3.write, NAMES, tops=DECODER)
