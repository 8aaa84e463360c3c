"""Checkpoints of GLM-4.5: Llama's attention, DeepSeek-V3's experts and multi-token prediction."""

from tfm.zoo import glm4_moe
from tfm.zoo.weights import deepseek, llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import layers_under

_LAYERS: Names = {**llama.NAMES, **deepseek.EXPERTS}
NAMES: Names = {**_LAYERS, **layers_under(_LAYERS, 'mtp/'), **deepseek.MTP_NAMES}

FAMILY = Family(
  'Glm4Moe', glm4_moe.read, glm4_moe.write, NAMES, ignored=deepseek.ignored_tensors,
  twins=deepseek.mtp_twins,
)  # fmt: skip
