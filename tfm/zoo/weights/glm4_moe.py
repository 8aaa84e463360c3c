"""GLM-4.5's checkpoints: Llama's attention, DeepSeek-V3's experts and its layers of later tokens."""

from tfm.zoo import glm4_moe
from tfm.zoo.weights import deepseek, llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import also

_LAYERS: Names = {**llama.NAMES, **deepseek.EXPERTS}
NAMES: Names = {**_LAYERS, **also(_LAYERS, 'mtp/'), **deepseek.AHEAD}

FAMILY = Family(
  'Glm4Moe', glm4_moe.read, glm4_moe.write, NAMES, ignored=deepseek.idle, twins=deepseek.shared,
)  # fmt: skip
