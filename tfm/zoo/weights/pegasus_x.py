"""Checkpoints of PEGASUS-X: BART's names, the global tokens, and their norm."""

from tfm.zoo import pegasus_x
from tfm.zoo.weights import bart
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole

_LAYER = 'model.encoder.layers.*'
NAMES: Names = {
  **bart.NAMES,
  'encoder/embed/globals': Whole('model.encoder.embed_global.weight'),
  'encoder/*/mixer/input_norm': f'{_LAYER}.self_attn_layer_norm',
  'encoder/*/mixer/global_norm': f'{_LAYER}.global_self_attn_layer_norm',
}
FAMILY = Family(
  'PegasusX', pegasus_x.read, pegasus_x.write, NAMES, 'model.', 'ForConditionalGeneration',
  tied=bart.TIED,
)  # fmt: skip
