"""Checkpoints of StarCoder2."""

from tfm.zoo import starcoder2
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **llama.NAMES,
  '*/ffn/up': 'model.layers.*.mlp.c_fc',
  '*/ffn/down': 'model.layers.*.mlp.c_proj',
}

FAMILY = Family('Starcoder2', starcoder2.read, starcoder2.write, NAMES, tops=DECODER)
