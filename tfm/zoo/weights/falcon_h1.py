"""Checkpoints of Falcon-H1: Llama's attention and a Mamba-2 mixer in each layer."""

from tfm.zoo import falcon_h1
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.mamba import mixer_names
from tfm.zoo.weights.rules import renamed

_ATTENTION: Names = {
  str(path).replace('*/mixer/', '*/mixer/left/'): name for path, name in llama.NAMES.items()
}

NAMES: Names = {
  **renamed(_ATTENTION, '.mlp.', '.feed_forward.'),
  **mixer_names('mamba2', 'model.layers.*.mamba', '*/mixer/right'),
  '*/ffn_norm': 'model.layers.*.pre_ff_layernorm',
  'norm': 'model.final_layernorm',
}

FAMILY = Family('FalconH1', falcon_h1.read, falcon_h1.write, NAMES)
