"""Checkpoints of Bamba: Llama's attention and Mamba-2's mixers."""

from tfm.zoo import bamba
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.mamba import mixer_names
from tfm.zoo.weights.rules import renamed

NAMES: Names = {
  **renamed(llama.NAMES, '.mlp.', '.feed_forward.'),
  **mixer_names('mamba2', 'model.layers.*.mamba'),
  '*/ffn_norm': 'model.layers.*.pre_ff_layernorm',
  'norm': 'model.final_layernorm',
}

FAMILY = Family('Bamba', bamba.read, bamba.write, NAMES)
