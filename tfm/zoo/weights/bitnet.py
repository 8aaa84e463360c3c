"""Checkpoints of BitNet: Llama's names, and a norm before each output projection."""

from tfm.zoo import bitnet
from tfm.zoo.weights.family import Family
from tfm.zoo.weights.llama import NAMES

FAMILY = Family('BitNet', bitnet.read, bitnet.write, {
  **NAMES,
  '*/mixer/out_norm': 'model.layers.*.self_attn.attn_sub_norm',
  '*/ffn/norm': 'model.layers.*.mlp.ffn_sub_norm',
})  # fmt: skip
