"""Checkpoints of ERNIE 4.5 mixtures."""

from tfm.zoo import ernie4_5_moe
from tfm.zoo.weights import deepseek, llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Row, Whole

NAMES: Names = {
  **llama.NAMES,
  **deepseek.EXPERTS,
  '*/ffn/router/bias': Row('model.layers.*.mlp.moe_statics.e_score_correction_bias'),
  'head/bias': Whole('lm_head.bias'),
}

#: Multi-token prediction layers are ignored, as in transformers.
FAMILY = Family('Ernie4_5_Moe', ernie4_5_moe.read, ernie4_5_moe.write, NAMES, ignored=(r'mtp',))
